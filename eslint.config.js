import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', '.cache/', '.lapidary/', 'types/'] },
  ...tseslint.configs.recommended,
  {
    files: ['src/**/*.{ts,tsx}'],
    languageOptions: { parserOptions: { project: './tsconfig.json' } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
    },
  },
  {
    files: ['src/**/*.{ts,tsx}'],
    ignores: ['src/store/ask.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          name: 'drizzle-orm/d1',
          importNames: ['drizzle'],
          message: 'ask D1 by askD1, which bounds it (ask.ts)',
        },
      ],
    },
  },
  {
    files: ['test/**/*.ts'],
    languageOptions: {
      parserOptions: { project: ['./test/tsconfig.json', './test/tsconfig.workerd.json'] },
    },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      // Bodies of answers are looked into by their fields; a wrong one fails the test that reads it.
      '@typescript-eslint/no-explicit-any': 'off',
    },
  },
);
