// The holes of a LAPI's delta stream: first that the real engine loses the change for a bouncer of its own,
// then that a bouncer of Lapidary hears of it. If an engine of a later version mends a hole, its first half fails.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeWith } from '../lab/ability.ts';
import { login, postAlert } from '../lab/alert.ts';
import { insertDecisions, lockDatabase, openDatabase } from '../lab/database.ts';
import type { Lapi } from '../lab/enforcers.ts';
import { type Engine, startEngine } from '../lab/engine.ts';
import { type Lapidary, startLapidary } from '../lab/lapidary.ts';
import { pullList, pullStream, type StreamAnswer, valuesOf } from '../lab/poller.ts';
import { until } from '../lab/wait.ts';

describeWith('a hole in the delta stream', ['lab'], () => {
  const others = Array.from({ length: 12 }, (_, index) => `203.0.113.${index + 1}`);
  let engine: Engine;
  let lapidary: Lapidary;
  let direct: Lapi;
  let edge: Lapi;

  // Syncs only when it is told to, so that each test knows what the edge can have heard.
  const quiet = { SYNC_INTERVAL_SECONDS: '3600', RESYNC_INTERVAL_SECONDS: '86400' };

  async function begin(settings: Record<string, string>) {
    engine = await startEngine();
    // An alert each, so that one of them can be deleted.
    const token = await login(engine);
    for (const value of others) await postAlert(engine, { decisions: [{ value }] }, token);
    direct = { url: engine.url, key: await engine.addBouncer('direct') };
    const upstream = { url: engine.url, key: await engine.addBouncer('lapidary') };
    lapidary = await startLapidary({ upstream, settings });
    edge = { url: lapidary.url, key: await lapidary.addBouncer('edge') };
    await lapidary.sync({ full: true });
  }
  beforeEach(() => begin(quiet));
  afterEach(async () => {
    await lapidary?.close();
    await engine?.close();
  });

  const ofValue = ({ new: added, deleted }: StreamAnswer, value: string) => ({
    new: added?.filter((decision) => decision.value === value) ?? [],
    deleted: deleted?.filter((decision) => decision.value === value) ?? [],
  });
  const nothing = { new: [], deleted: [] };

  /** What the real LAPI tells its own bouncer of a value from here on. */
  async function expectLost(value: string) {
    for (let poll = 0; poll < 3; poll++) {
      expect(ofValue(await pullStream(direct), value)).toEqual(nothing);
    }
  }

  /** While the write lock is held by another: starts `write`, then a poll of both kinds, and then lets go. */
  async function overtake<T>(write: () => Promise<T>, overtakenMs = 0): Promise<T> {
    const lock = await lockDatabase(engine);
    try {
      const writing = write();
      const startedMs = Date.now();
      // An answered look-up shows that the engine took up what it was asked before.
      await until('the engine has begun to write', async () => {
        const headers = { 'x-api-key': direct.key, 'user-agent': 'lab/v1' };
        const answer = await fetch(`${engine.url}/v1/decisions?ip=192.0.2.99`, { headers });
        return answer.ok && Date.now() - startedMs > overtakenMs;
      });
      const polls = [pullStream(direct), lapidary.sync()] as const;
      await until('the engine has begun to answer the polls', async () => {
        const headers = { 'x-api-key': direct.key, 'user-agent': 'lab/v1' };
        return (await fetch(`${engine.url}/v1/decisions?ip=192.0.2.98`, { headers })).ok;
      });
      await lock.release();
      const written = await writing;
      await Promise.all(polls);
      return written;
    } finally {
      await lock.release();
    }
  }

  // An engine tells nobody when it has stamped a row: on a busy machine the poll may come before that, and then
  // nothing is lost. What is to be shown is that it can be.
  const race = { retry: 4 };

  it('a ban that waits for the write lock is overtaken by a poll', race, async () => {
    const banned = '192.0.2.1';
    const token = await login(engine);
    await pullStream(direct, 'startup=true');
    await pullStream(edge, 'startup=true');

    const id = await overtake(() => postAlert(engine, { decisions: [{ value: banned }] }, token));
    expect(id).toMatch(/^\d+$/);
    await expectLost(banned);
    expect(valuesOf(await pullList(direct))).toContain(banned);

    await lapidary.sync({ full: true });
    expect(ofValue(await pullStream(edge), banned).new).toMatchObject([
      { value: banned, origin: 'crowdsec' },
    ]);
  });

  it('an unban that waits for the write lock is overtaken by a poll', race, async () => {
    const unbanned = others[0]!;
    const token = await login(engine);
    await pullStream(direct, 'startup=true');
    await pullStream(edge, 'startup=true');

    // A LAPI looks back two seconds for what was deleted; a writer that holds the lock for longer is enough.
    await overtake(() => deleteDecisions(unbanned, token), 2500);
    await expectLost(unbanned);
    expect(valuesOf(await pullList(direct))).not.toContain(unbanned);

    await lapidary.sync({ full: true });
    expect(ofValue(await pullStream(edge), unbanned)).toMatchObject({
      new: [],
      deleted: [{ value: unbanned }],
    });
  });

  async function deleteDecisions(ip: string, token: string) {
    const headers = { authorization: `Bearer ${token}`, 'user-agent': 'lapidary-lab/v1' };
    const response = await fetch(`${engine.url}/v1/decisions?ip=${ip}`, { method: 'DELETE', headers });
    expect(await response.json()).toEqual({ nbDeleted: '1' });
  }

  it('the decisions of a deleted alert are deleted without a word', async () => {
    const unbanned = '192.0.2.1';
    await engine.ban(unbanned);
    await lapidary.sync();
    expect(valuesOf((await pullStream(direct, 'startup=true')).new)).toContain(unbanned);
    expect(valuesOf((await pullStream(edge, 'startup=true')).new)).toContain(unbanned);

    await engine.cscli('alerts', 'delete', '-i', unbanned);
    await expectLost(unbanned);
    expect(valuesOf(await pullList(direct))).not.toContain(unbanned);

    await lapidary.sync({ full: true });
    expect(ofValue(await pullStream(edge), unbanned)).toMatchObject({
      new: [],
      deleted: [{ value: unbanned }],
    });
    expect(valuesOf(await pullList(edge))).toEqual([...others].sort());
  });

  it('a community pull deletes the rows it replaces without a word', async () => {
    const value = '192.0.2.1';
    insertDecisions(engine, [{ value, seconds: 7200 }]);
    await lapidary.sync();
    const before = ofValue(await pullStream(direct, 'startup=true'), value).new;
    expect(ofValue(await pullStream(edge, 'startup=true'), value).new).toMatchObject(
      before.map(({ id }) => ({ id })),
    );
    const oldId = before[0]!.id;

    // As LAPI does it, in one transaction (apic.go UpdateCommunityBlocklist); here the new one ends earlier.
    const database = openDatabase(engine);
    database.prepare('DELETE FROM decisions WHERE id = ?').run(oldId);
    database.close();
    insertDecisions(engine, [{ value, seconds: 3600 }]);
    const after = ofValue(await pullStream(direct), value);
    expect(after).toMatchObject({ new: [{ value }], deleted: [] });
    const newId = after.new[0]!.id;

    // The delta alone is enough here: that the old row is gone follows from the new one.
    await lapidary.sync();
    expect((await pullList(edge)).filter((decision) => decision.value === value)).toMatchObject([
      { id: newId },
    ]);
    const told = ofValue(await pullStream(edge), value);
    expect(told).toMatchObject({ new: [{ id: newId }], deleted: [] });
    expect(hoursOf(told.new[0]!.duration)).toBe(0);

    await engine.unban(value);
    const named: number[] = [];
    for (let poll = 0; poll < 3; poll++) {
      named.push(...ofValue(await pullStream(direct, 'dedup=false'), value).deleted.map(({ id }) => id));
    }
    // Whoever keeps decisions by id still bans, by the one that nobody ever takes back.
    expect(new Set(named)).toEqual(new Set([newId]));
    await lapidary.sync();
    expect(ofValue(await pullStream(edge), value)).toMatchObject({ new: [], deleted: [{ value }] });
    expect(valuesOf(await pullList(edge))).toEqual([...others].sort());
  });

  it('the shorter ban that is left when the longest is deleted is not announced', async () => {
    const value = '192.0.2.1';
    await engine.ban(value, { duration: '2h30m' });
    await engine.ban(value, { duration: '8h30m' });
    await lapidary.sync();
    const [long] = ofValue(await pullStream(direct, 'startup=true'), value).new;
    expect(hoursOf(long!.duration)).toBe(8);
    const [edgeLong] = ofValue(await pullStream(edge, 'startup=true'), value).new;
    expect(edgeLong!.id).toBe(long!.id);

    await engine.cscli('decisions', 'delete', '--id', String(long!.id));
    // The bouncer goes on to ban for eight hours and a half.
    await expectLost(value);

    await lapidary.sync();
    const told = ofValue(await pullStream(edge), value);
    expect(told.deleted).toEqual([]);
    expect(told.new.map(({ duration }) => hoursOf(duration))).toEqual([2]);

    await engine.unban(value);
    await lapidary.sync();
    expect(ofValue(await pullStream(edge), value)).toMatchObject({ new: [], deleted: [{ value }] });
  });

  it('a full list that misses more than a third is accepted at the second look', async () => {
    await pullStream(edge, 'startup=true');
    const lost = others.slice(0, 5);
    for (const value of lost) await engine.cscli('alerts', 'delete', '-i', value);

    const first = await lapidary.sync({ full: true });
    expect(first).toMatchObject({ ok: true, removed: 0, warning: expect.stringMatching(/misses 5 of 12/) });
    expect((await pullStream(edge)).deleted).toEqual([]);
    expect(valuesOf(await pullList(edge))).toEqual([...others].sort());

    const second = await lapidary.sync({ full: true });
    expect(second).toMatchObject({ ok: true, removed: 5, warning: null });
    expect(valuesOf((await pullStream(edge)).deleted)).toEqual([...lost].sort());
    expect(valuesOf(await pullList(edge))).toEqual(others.slice(5).sort());
  });

  it('is closed by the rounds of the feed itself', async () => {
    await lapidary.close();
    await engine.close();
    await begin({ RESYNC_INTERVAL_SECONDS: '5' });
    const unbanned = others[0]!;
    await pullStream(edge, 'startup=true');
    await engine.cscli('alerts', 'delete', '-i', unbanned);
    await until('the edge reports the unban', async () => {
      return valuesOf((await pullStream(edge)).deleted).includes(unbanned);
    });
  });
});

/** Whole hours of a duration as Go writes it. */
function hoursOf(duration: string): number {
  return Number(/^(\d+)h/.exec(duration)?.[1] ?? 0);
}
