// What an operator pastes into the configuration of each kind of bouncer. docs/bouncers.md has the same lines. Pure.

interface Kind {
  readonly id: string;
  readonly title: string;
  /** How its User-Agent begins. */
  readonly agent: RegExp;
  readonly file: string;
  readonly lines: (url: string, key: string) => string;
}

const yaml = (url: string, key: string): string => `api_url: ${url}/\napi_key: ${key}`;
const lua = (url: string, key: string): string => `API_URL=${url}\nAPI_KEY=${key}`;
const folder = '/etc/crowdsec/bouncers';

const other: Kind = {
  id: 'other',
  title: 'Another one',
  agent: /^$/,
  file: 'its address of the LAPI and its key',
  lines: (url, key) => `${url}/\n${key}`,
};

const kinds: readonly Kind[] = [
  {
    id: 'firewall',
    title: 'Firewall',
    agent: /^crowdsec-firewall-bouncer/,
    file: `${folder}/crowdsec-firewall-bouncer.yaml`,
    lines: yaml,
  },
  {
    id: 'custom',
    title: 'Custom',
    agent: /^crowdsec-custom-bouncer/,
    file: `${folder}/crowdsec-custom-bouncer.yaml`,
    lines: yaml,
  },
  {
    id: 'nginx',
    title: 'nginx',
    agent: /^crowdsec-nginx-bouncer/,
    file: `${folder}/crowdsec-nginx-bouncer.conf`,
    lines: lua,
  },
  {
    id: 'traefik',
    title: 'Traefik',
    agent: /traefik/i,
    file: 'the middleware of the plugin crowdsec-bouncer-traefik-plugin',
    lines: (url, key) => {
      const { protocol, host, pathname } = new URL(url);
      const path = pathname === '/' ? [] : [`crowdsecLapiPath: ${pathname}/`];
      const lines = [
        `crowdsecLapiScheme: ${protocol.slice(0, -1)}`,
        `crowdsecLapiHost: ${host}`,
        ...path,
        `crowdsecLapiKey: ${key}`,
      ];
      return ['crowdsecMode: stream', ...lines].join('\n');
    },
  },
  {
    id: 'caddy',
    title: 'Caddy',
    agent: /caddy/i,
    file: 'the global options of the Caddyfile',
    lines: (url, key) => `crowdsec {\n\tapi_url ${url}/\n\tapi_key ${key}\n}`,
  },
  other,
];

/** For a form: what there is to choose from. */
export const kindOptions = kinds.map(({ id, title }) => [id, title] as const);

export function kindNamed(id: string | null): Kind {
  return kinds.find((kind) => kind.id === id) ?? other;
}

/** Of a bouncer that was seen, by the type that it named. */
export function kindOf(type: string | null): Kind {
  return (type && kinds.find(({ agent }) => agent.test(type))) || other;
}
