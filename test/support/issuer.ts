// An OIDC issuer's keys and tokens: real ones, made with jose. Who serves its key set is the suite's business: a
// stub of fetch inside workerd, a server on loopback outside.
import { exportJWK, exportSPKI, generateKeyPair, SignJWT, type JWK, type JWTPayload } from 'jose';

type Pair = Awaited<ReturnType<typeof generateKeyPair>>;

export interface Signing {
  /** `kid` of the key; the newest when it is left out. */
  kid?: string;
  /** Claims over the usual ones; undefined leaves one out. */
  claims?: Record<string, unknown>;
}

export interface TestIssuer {
  readonly url: string;
  readonly audience: string;
  /** Makes a key and publishes it. */
  addKey(alg: 'RS256' | 'ES256', kid: string): Promise<void>;
  /** Stops to publish a key; it can still sign. */
  dropKey(kid: string): void;
  /** A new key that signs under a name that is published for another. */
  forgeKey(alg: 'RS256' | 'ES256', kid: string): Promise<void>;
  jwks(): { keys: JWK[] };
  publicPem(kid: string): Promise<string>;
  sign(signing?: Signing): Promise<string>;
}

export function createIssuer(url: string, audience: string): TestIssuer {
  const keys = new Map<string, { alg: string; pair: Pair; jwk: JWK; published: boolean }>();
  let newest = '';
  const issuer: TestIssuer = {
    url,
    audience,
    async addKey(alg, kid) {
      const pair = await generateKeyPair(alg, { extractable: true });
      const jwk = { ...(await exportJWK(pair.publicKey)), kid, alg, use: 'sig' };
      keys.set(kid, { alg, pair, jwk, published: true });
      newest = kid;
    },
    dropKey(kid) {
      const key = keys.get(kid);
      if (key) key.published = false;
    },
    async forgeKey(alg, kid) {
      const key = keys.get(kid);
      if (key) key.pair = await generateKeyPair(alg, { extractable: true });
    },
    jwks: () => ({
      keys: [...keys.values()].filter(({ published }) => published).map(({ jwk }) => jwk),
    }),
    async publicPem(kid) {
      return exportSPKI((keys.get(kid) as { pair: Pair }).pair.publicKey);
    },
    async sign({ kid = newest, claims = {} } = {}) {
      const key = keys.get(kid);
      if (!key) throw new Error(`no key ${kid}`);
      const header = { alg: key.alg, kid, typ: 'JWT' };
      return new SignJWT(usualClaims(issuer, claims)).setProtectedHeader(header).sign(key.pair.privateKey);
    },
  };
  return issuer;
}

/** In every token as a claim that nothing asks for: it may be in no output either. */
export const canary = 'a-claim-that-is-nobody-elses-business';

/** A minute old, good for five. */
export function usualClaims(issuer: TestIssuer, claims: Record<string, unknown> = {}): JWTPayload {
  const now = Math.floor(Date.now() / 1000);
  const all = {
    iss: issuer.url,
    aud: issuer.audience,
    sub: 'alice',
    iat: now - 60,
    exp: now + 300,
    canary,
    ...claims,
  };
  return JSON.parse(JSON.stringify(all)) as JWTPayload;
}
