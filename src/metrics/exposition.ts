// The text that Prometheus reads: format 0.0.4, or OpenMetrics 1.0.0. Pure. A label that is not escaped breaks the whole
// scrape, and a bouncer may choose some of them. A scrape may have 200,000 lines, so the labels that many of them share are
// made once, as text.

/** A family of series. `name`: that of its samples, so a counter's ends in `_total`. Each sample has other labels. */
export interface Family {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  readonly samples: Iterable<Sample>;
}

export type Sample = readonly [labels: Labels, value: number];

/** Labels as a line has them between its braces: `engine="main",origin="CAPI"`. Empty: none. */
export type Labels = string;

export function labelsOf(labels: Readonly<Record<string, string>>): Labels {
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${escaped(value)}"`)
    .join();
}

/** What it may be sent as. The first one is for whoever asks for neither. */
export const mediaTypes = ['text/plain', 'application/openmetrics-text'] as const;
export type MediaType = (typeof mediaTypes)[number];

export const contentTypes: Readonly<Record<MediaType, string>> = {
  'text/plain': 'text/plain; version=0.0.4; charset=utf-8',
  'application/openmetrics-text': 'application/openmetrics-text; version=1.0.0; charset=utf-8',
};

/** The media type that an `Accept` asks for: OpenMetrics only where it is named, and no less wanted than plain text. */
export function mediaTypeFor(accept: string): MediaType {
  const wanted = { 'text/plain': 0, 'application/openmetrics-text': 0 };
  for (const part of accept.toLowerCase().split(',')) {
    const [name, ...parameters] = part.split(';').map((text) => text.trim());
    const kind = mediaTypes.find((type) => type === name);
    const version = parameters.find((text) => text.startsWith('version='))?.slice(8);
    if (kind === undefined || (kind !== 'text/plain' && version !== undefined && version !== '1.0.0'))
      continue;
    const quality = Number(parameters.find((text) => text.startsWith('q='))?.slice(2) ?? 1);
    wanted[kind] = Math.max(wanted[kind], quality || 0);
  }
  const open = wanted['application/openmetrics-text'];
  return open > 0 && open >= wanted['text/plain'] ? 'application/openmetrics-text' : 'text/plain';
}

const sliceLength = 128 * 1024;

/** The text of families in slices. A family without samples is left out. */
export function* render(families: Iterable<Family>, mediaType: MediaType): Generator<string> {
  const isOpen = mediaType === 'application/openmetrics-text';
  let slice = '';
  for (const { name, type, help, samples } of families) {
    const base = isOpen ? name.replace(/_total$/, '') : name;
    let head = `# HELP ${base} ${help}\n# TYPE ${base} ${type}\n`;
    for (const [labels, value] of samples) {
      slice += `${head}${name}${labels === '' ? '' : `{${labels}}`} ${valueText(value)}\n`;
      head = '';
      if (slice.length < sliceLength) continue;
      yield slice;
      slice = '';
    }
  }
  yield isOpen ? `${slice}# EOF\n` : slice;
}

const escapes: Readonly<Record<string, string>> = { '\\': '\\\\', '"': '\\"', '\n': '\\n' };

/** The value of a label as it stands between its quotes. */
export function escaped(value: string): string {
  return value.replace(/[\\"\n]/g, (character) => escapes[character] ?? '');
}

function valueText(value: number): string {
  return Number.isFinite(value) ? String(value) : value > 0 ? '+Inf' : value < 0 ? '-Inf' : 'NaN';
}
