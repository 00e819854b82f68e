// Evaluates the flake's modules with nixpkgs' `lib` (NIXPKGS_LIB names its folder), and writes the units that come of
// it as unit files. What is compared with nix/tests/units/ and run by systemd is what these files say.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

export const root = resolve(import.meta.dirname, '../..');

/** The value of an expression with nix/tests/evaluate.nix in scope, or the error of its evaluation. */
export function evaluate(expression: string): any {
  const body = `with import ${root}/nix/tests/evaluate.nix; ${expression}`;
  const args = ['--store', 'dummy://', '--eval', '--strict', '--json', '--expr', body];
  const { status, stdout, stderr, error } = spawnSync('nix-instantiate', args, {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(error?.message ?? stderr);
  return JSON.parse(stdout);
}

export interface Unit {
  description: string;
  after: string[];
  wants: string[];
  requires: string[];
  partOf: string[];
  wantedBy: string[];
  onFailure: string[];
  environment: Record<string, string>;
  startLimitIntervalSec: number | null;
  startLimitBurst: number | null;
  serviceConfig: Record<string, unknown>;
  timerConfig: Record<string, unknown>;
}

/** What nix/tests/evaluate.nix reports of one host. */
export interface Report {
  refusals: string[];
  warnings: string[];
  services: Record<string, Unit>;
  timers: Record<string, Unit>;
  firewallBouncer: any;
  crowdsec: any;
  ports: number[];
  scraped: any[];
}

/** The unit files of a host, and the scripts that they run, by name. */
export function files(report: Report): Map<string, string> {
  const all = new Map<string, string>();
  for (const [name, unit] of Object.entries(report.services)) {
    all.set(`${name}.service`, unitFile(unit, 'Service', unit.serviceConfig, all));
  }
  for (const [name, unit] of Object.entries(report.timers)) {
    all.set(`${name}.timer`, unitFile(unit, 'Timer', unit.timerConfig, all));
  }
  return all;
}

function unitFile(
  unit: Unit,
  section: string,
  config: Record<string, unknown>,
  scripts: Map<string, string>,
): string {
  const environment = Object.entries(unit.environment).map(([name, value]) => `${name}=${value}`);
  const sections: [string, Record<string, unknown>][] = [
    [
      'Unit',
      {
        Description: unit.description || [],
        After: unit.after.join(' ') || [],
        Wants: unit.wants.join(' ') || [],
        Requires: unit.requires.join(' ') || [],
        PartOf: unit.partOf.join(' ') || [],
        OnFailure: unit.onFailure.join(' ') || [],
        StartLimitIntervalSec: unit.startLimitIntervalSec ?? [],
        StartLimitBurst: unit.startLimitBurst ?? [],
      },
    ],
    [
      section,
      { Environment: environment.map((each) => JSON.stringify(each.replaceAll('%', '%%'))), ...config },
    ],
    ['Install', { WantedBy: unit.wantedBy.join(' ') || [] }],
  ];
  const text = sections
    .map(([name, values]) => {
      const lines = Object.entries(values).flatMap(([key, value]) =>
        [value].flat().map((each) => `${key}=${String(each)}\n`),
      );
      return lines.length > 0 ? `[${name}]\n${lines.join('')}` : '';
    })
    .filter((part) => part !== '')
    .join('\n');
  return text.replace(/⟦(.*?)⟧/g, (_, json: string) => {
    const script = JSON.parse(json) as { name: string; text: string };
    scripts.set(script.name, script.text);
    return `${store}-${script.name}`;
  });
}

/** What every store path begins with in an evaluation without a store. */
export const store = `/nix/store/${'0'.repeat(32)}`;
