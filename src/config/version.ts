// The release, as package.json has it (test/e2e/house.test.ts).

export const version = '0.2.0';
