// A long audit log is verified in pages that stay within what Cloudflare gives a request, from its beginning or from a
// head that was kept. AUDIT_ROWS asks for more rows: 1,000,000 take some minutes.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cpuSeconds } from '../bench/cpu.ts';
import { limitMb, watch, type Watched } from '../bench/watched.ts';
import { describeWith } from '../lab/ability.ts';
import { fillAudit, writeD1 } from '../lab/d1-file.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';

const count = Number(process.env['AUDIT_ROWS'] ?? 60_000);
const pageRows = 50_000;
const patienceMs = 120_000 + count;

describeWith(`an audit log of ${count} rows`, ['sqlite'], () => {
  let lapidary: Lapidary;
  let watched: Watched;
  beforeAll(async () => {
    lapidary = await startLapidary();
    // D1's file is made at its first use.
    await lapidary.addBouncer('first');
    await lapidary.stop();
    await writeD1(lapidary.stateDir, (database) => fillAudit(database, count));
    await lapidary.start();
    watched = await watch(lapidary);
  }, patienceMs);
  afterAll(async () => {
    await watched?.end();
    await lapidary?.close();
  });

  it(
    'is verified page by page',
    async () => {
      const took: { seconds: number; cpu: number }[] = [];
      let verdict: any = { next: 0 };
      const mostMb = await watched.most(async () => {
        while (verdict.next !== null) {
          const [startedMs, cpuBefore] = [Date.now(), cpuSeconds(watched.pid())];
          const { status, body } = await lapidary.operator('GET', `/audit/verify?after=${verdict.next}`);
          expect([status, body.ok]).toEqual([200, true]);
          took.push({ seconds: (Date.now() - startedMs) / 1000, cpu: cpuSeconds(watched.pid()) - cpuBefore });
          verdict = body;
        }
      });
      expect(took).toHaveLength(Math.floor(count / pageRows) + 1);
      expect(verdict.rows).toBeGreaterThanOrEqual(count);
      expect(mostMb).toBeLessThan(limitMb);
      const most = (which: 'seconds' | 'cpu') => Math.max(...took.map((one) => one[which])).toFixed(2);
      console.log(
        `${count} rows: ${took.length} requests, each at most ${most('seconds')} s and ${most('cpu')} s of CPU, D1's ` +
          `own included; the isolate had ${Math.round(mostMb)} MB at most`,
      );
      const { seq, hash } = verdict.head;
      const since = await lapidary.operator('GET', `/audit/verify?after=${seq}&hash=${hash}`);
      expect(since.body).toMatchObject({ ok: true, next: null });
    },
    patienceMs,
  );
});
