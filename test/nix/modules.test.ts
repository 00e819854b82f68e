// The flake without a builder: every .nix file parses; with nixpkgs' `lib` the modules are evaluated, and the units
// that come of them are those in nix/tests/units/.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { evaluate, files, type Report, root } from './evaluate.ts';

function nixFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.nix'))
    .map((name) => join(folder, name));
}

describeWith('every .nix file', ['nix'], () => {
  test.each(['flake.nix', ...nixFiles('nix')])('%s parses', (file) => {
    // Without a store: opening one warns of what this machine's set-up lacks.
    const args = ['--store', 'dummy://', '--parse', join(root, file)];
    const { stderr, status } = spawnSync('nix-instantiate', args, { encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
  });

  test('flake.nix only wires', () => {
    expect(readFileSync(join(root, 'flake.nix'), 'utf8').split('\n').length).toBeLessThan(100);
  });

  test('an example is shown for each of the five uses', () => {
    expect(readdirSync(join(root, 'nix/examples')).sort()).toEqual([
      'engine.nix',
      'fleet.nix',
      'log-processor.nix',
      'one-host.nix',
      'self-hosted.nix',
    ]);
  });
});

describeWith('the modules, evaluated,', ['nixpkgs'], () => {
  describe('the examples', () => {
    const examples: Record<string, Report> = evaluate('examples');
    test.each(Object.keys(examples))('%s is accepted without a warning', async (name) => {
      const report = examples[name] as Report;
      expect([report.refusals, report.warnings]).toEqual([[], []]);
      // The fleet's hosts differ by their names.
      if (/-[23]$/.test(name)) return;
      await expectUnits(name, report);
    });

    test.each(['booted', 'switched'])('the host that is %s is the one in nix/tests/units', async (name) => {
      await expectUnits(name, evaluate(`report [ ${root}/nix/tests/${name}.nix ]`));
    });

    async function expectUnits(name: string, report: Report) {
      const folder = join(root, 'nix/tests/units', name);
      const written = files(report);
      for (const [file, text] of written) await expect(text).toMatchFileSnapshot(join(folder, file));
      expect(readdirSync(folder).sort()).toEqual([...written.keys()].sort());
    }
  });

  describe('an operator', () => {
    const cases: Record<string, Report> = evaluate('cases');
    const refusal: Record<string, string> = {
      'no-broker': 'keys.crowdsec-firewall-bouncer: there is no broker',
      'two-introductions': 'enrolTokenFile and identityToken exclude each other',
      'two-keys-one-credential': 'need different `credential` names',
      'secret-setting': 'would put a secret into the world-readable store',
      'unknown-setting': 'settings: there is no setting SYNC_INTERVAL.',
      'unknown-secret': 'secretFiles knows BOOTSTRAP_SECRET',
      'engine-without-engine': 'which must be enabled',
      'machine-without-crowdsec': 'which must be enabled',
      'machine-and-engine': 'enable one of them',
      'two-keys-one-bouncer': 'caddy and crowdsec-firewall-bouncer are keys of one bouncer, web-1;',
      'no-such-unit': 'there is no caddy.service',
      oneshot: 'systemd.services.job.serviceConfig.Restart = "on-failure"',
      'no-host-key': 'there is no SSH host key to sign with',
      'nftables-without-nftables': 'set networking.nftables.enable',
      'unknown-action': 'deny_action is DROP or REJECT',
      ipset: 'in ipset mode the rules are yours',
    };
    const warning: Record<string, string[]> = {
      'plain-http': ['is plain http'],
      'plain-http-machine': ["the machine's password can be read on the way"],
      'own-package': ['offlineBoot does nothing: set services.lapidary.crowdsec.basePackage'],
      'open-server': ['listens on 0.0.0.0 with plain http', 'PUBLIC_URL is not set'],
    };

    test.each(Object.entries(refusal))('is refused: %s', (name, message) => {
      expect(cases[name]?.refusals).toEqual([expect.stringContaining(message)]);
    });

    test.each(Object.entries(warning))('is warned: %s', (name, messages) => {
      expect(cases[name]?.refusals).toEqual([]);
      expect(cases[name]?.warnings).toEqual(messages.map((message) => expect.stringContaining(message)));
    });

    test('is told nothing when nothing is wrong', () => {
      for (const [name, { refusals, warnings }] of Object.entries(cases)) {
        if (!(name in refusal)) expect([name, refusals]).toEqual([name, []]);
        if (!(name in warning) && !(name in refusal)) expect([name, warnings]).toEqual([name, []]);
      }
    });

    test.each([
      ['a key of the store', '{ services.lapidary.hostKeyFile = "${pkgs.coreutils}/key"; }'],
      ['a path literal', '{ services.lapidary.enrolTokenFile = ./evaluate.nix; }'],
      ['a name with a space', '{ services.lapidary.keys.a.host = "web 1"; }'],
      ['an address with a query', '{ services.lapidary.keys.a.brokerUrl = "https://example.net/?a"; }'],
      ['a wait that a start has no time for', '{ services.lapidary.keys.a.waitSeconds = 90; }'],
      [
        'the same for an account',
        '{ services = { crowdsec.enable = true; lapidary.machine = { enable = true; waitSeconds = 90; }; }; }',
      ],
      ['a time without a unit', '{ services.lapidary.keys.a.renewEvery = "3600"; }'],
    ])('is stopped by the type: %s', (_, module) => {
      const complete = `{ imports = [ ${module} ]; services.lapidary.brokerUrl = "https://example.net"; services.lapidary.keys.a = { }; services.openssh.enable = true; systemd.services.a.serviceConfig.ExecStart = "/a"; }`;
      expect(() => evaluate(`report [ ${complete} ]`)).toThrow('is not of type');
    });

    test('may have a bouncer beside the engine: it asks Lapidary, not the engine', () => {
      const { firewallBouncer } = cases['beside-an-engine'] as Report;
      expect(firewallBouncer.api_url).toBe('https://lapidary.example.net/');
      expect(firewallBouncer.mode).toBe('iptables');
    });

    test('of a router filters what passes through it, in sets of the names that are set, as the bouncer would', () => {
      const { firewallBouncer } = cases['router'] as Report;
      const text = files(cases['router'] as Report);
      expect(text.get('crowdsec-firewall-bouncer.service')).toContain('nft -f /nix/store');
      const tables = text.get('lapidary-nftables-tables');
      expect(tables).toContain('set bans {');
      const deny = 'log prefix "crowdsec: " reject';
      for (const hook of ['input', 'forward']) {
        expect(tables).toMatch(new RegExp(`hook ${hook} priority filter;[^}]*ip saddr @bans ${deny}`));
        expect(tables).toMatch(
          new RegExp(`hook ${hook} priority -10;[^}]*ip6 saddr @crowdsec6-blacklists ${deny}`),
        );
      }
      expect(firewallBouncer.iptables_chains).toEqual(['INPUT', 'FORWARD']);
    });

    test('whose bouncer makes its own tables has its hooks there, and gets them back after a reload', () => {
      const report = cases['bouncers-own-tables'] as Report;
      const text = files(report);
      expect(report.firewallBouncer.nftables_hooks).toEqual(['input', 'forward']);
      expect(text.get('crowdsec-firewall-bouncer.service')).not.toContain('nft -f');
      expect(text.get('nftables.service')).toMatch(/ExecReload=-.*lapidary-refill-sets\n/);
      expect(text.get('lapidary-refill-sets')).toContain("for table in 'ip crowdsec'; do");
    });

    test('with rules of its own has its sets refilled after each reload', () => {
      const text = files(cases['own-rules'] as Report).get('lapidary-refill-sets');
      expect(text).toMatch(/^refill$/m);
    });

    test('of an image takes its name, and the bouncers’ of it, when it runs', () => {
      const text = files(cases['nameless'] as Report);
      expect(text.get('lapidary-key@caddy.service')).toContain(' --host %%H --host-key ');
      expect(text.get('lapidary-key@caddy.service')).toContain(' --bouncer %%H-caddy ');
    });

    test('whose SSH keys are elsewhere signs with the ed25519 one', () => {
      const text = files(cases['other-host-keys'] as Report).get(
        'lapidary-key@crowdsec-firewall-bouncer.service',
      );
      expect(text).toContain('LoadCredential=host-key:/persist/ssh/ed25519\n');
    });

    test('without a broker has its engine read the journal, start offline and reload', () => {
      const crowdsec = files(cases['without-broker'] as Report).get('crowdsec.service');
      expect(crowdsec).toContain('CSCLI_OFFLINE_START=1');
      expect(crowdsec).toContain('SupplementaryGroups=systemd-journal');
      expect(crowdsec).toContain('kill -HUP $MAINPID');
    });

    test('whose engine has a database password has it for cscli, too', () => {
      const text = files(cases['database-password'] as Report).get('lapidary-engine-register.service');
      expect(text).toContain('EnvironmentFile=/run/secrets/crowdsec-database\n');
    });

    test.each([
      [
        'of 25.11 and 26.05',
        'general',
        ({ general, lapi }: any) => [general.api.server, lapi.credentialsFile],
      ],
      [
        'of nixpkgs#535319',
        'config',
        ({ config: { api } }: any) => [api.server, api.client.credentials_path],
      ],
    ])('of a log processor has its LAPI off and its account read: crowdsec %s', (_, main, settings) => {
      const { crowdsec } = evaluate(`reportOn "${main}" [ ${root}/nix/examples/log-processor.nix ]`);
      const file = '/run/credentials/crowdsec.service/lapidary-machine';
      expect(settings(crowdsec)).toEqual([{ enable: false }, file]);
    });

    test('scrapes with Prometheus as nix/README.md shows', () => {
      const readme = readFileSync(join(root, 'nix/README.md'), 'utf8');
      const [, shown = ''] = /```nix\n(\{\n {2}services\.prometheus[^]*?)```/.exec(readme) ?? [];
      const module = shown.replace('./rules.yml', `${root}/ops/prometheus/rules.yml`);
      const { scraped }: Report = evaluate(`report [ (${module}) ]`);
      expect(scraped).toMatchObject([
        { scheme: 'https', static_configs: [{ targets: ['lapidary.example.net'] }] },
      ]);
    });

    test('may give the key to any service', () => {
      const text = files(cases['any-consumer'] as Report);
      expect(text.get('my-bouncer.service')).toContain(
        'LoadCredential=api-key:/var/lib/lapidary-key/mine/key',
      );
      expect(text.get('lapidary-key@mine.service')).toContain(
        'lapidary-key --broker https://lapidary.example.net/lapi --host web-9 --host-key %d/host-key ' +
          '--identity-token gce --bouncer web-9-mine --state %S/lapidary-key/mine --every 1d\n',
      );
      expect(text.get('lapidary-key@mine.timer')).toContain('RandomizedDelaySec=21600s');
    });

    test('writes settings as they are, and a server on a low port may bind it', () => {
      const server = files(cases['low-port'] as Report).get('lapidary.service');
      expect(server).toContain('Environment="SYNC_INTERVAL_SECONDS=5"');
      expect(server).toContain('CapabilityBoundingSet=CAP_NET_BIND_SERVICE');
      expect(server).toContain('Environment="PUBLIC_URL=http://127.0.0.1:443"');
      expect(cases['open-server']?.ports).toEqual([8787]);
    });
  });

  test('the flake has its outputs for both systems', () => {
    const imported =
      'lib.concatMap (module: map toString module.imports) (lib.attrValues flake.nixosModules)';
    const flake = evaluate(`flake // { nixosModules = ${imported}; }`);
    for (const path of flake.nixosModules) expect(existsSync(path), path).toBe(true);
    for (const system of ['x86_64-linux', 'aarch64-linux']) {
      const packages = { default: 'lapidary', lapidary: 'lapidary', 'lapidary-key': 'lapidary-key' };
      expect(flake.packages[system]).toEqual(packages);
      expect(flake.checks[system]).toEqual({ ...packages, options: 'lapidary-options', vm: 'lapidary' });
      expect(flake.formatter[system]).toBe('nixfmt-tree');
    }
    expect(flake.overlay).toEqual({ lapidary: 'lapidary', 'lapidary-key': 'lapidary-key' });
  });

  test('the server’s package has an address and a hash for each package that npm would install', () => {
    const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
    const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const { fetched, named } = evaluate('flake.npmDeps');
    expect(Object.keys(fetched)).toEqual(
      Object.keys(packages)
        .filter((path) => path !== '')
        .sort(),
    );
    expect(Object.keys(named).sort()).toEqual(Object.keys({ ...dependencies, ...devDependencies }).sort());
    for (const [path, { resolved, integrity }] of Object.entries<any>(fetched)) {
      const { version, integrity: hash } = packages[path];
      const name = path.split('node_modules/').at(-1) as string;
      expect(integrity).toBe(hash);
      expect(resolved).toBe(
        `https://packages.example.net/${name}/-/${name.split('/').at(-1)}-${version}.tgz`,
      );
    }
  });

  test('the option reference is that of the modules', async () => {
    const text = evaluate(`import ${root}/nix/option-docs.nix { inherit lib; }`);
    await expect(text).toMatchFileSnapshot(join(root, 'nix/options.md'));
  });
});
