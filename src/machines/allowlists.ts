// Answers about allowlists, which every AppSec component asks for once a minute: kept for a moment in this isolate, for
// callers whom the engine has let in itself just now. They are the same for all machines (LAPI: pkg/database/
// allowlists.go). A mistake here shows one caller's answer to somebody whom the engine would have refused.

import { sinceMs } from '../runtime/clock.ts';
import { fail, succeed, type Result } from '../http/failure.ts';
import { sha256Hex } from '../crypto/secret.ts';

const keptMs = 30_000;
/** How long the engine's word counts that a token is good; the longest that a dead one may still read a list. */
const admittedMs = 60_000;
const mostAnswers = 200;
const mostAdmitted = 20_000;
/** Of one answer, and of all with their questions: a query that no engine knows makes another question of the same. */
const mostBytes = 1024 * 1024;
const mostBytesOfAll = 8 * 1024 * 1024;

interface Kept {
  readonly status: number;
  readonly headers: Headers;
  readonly body: ArrayBuffer | null;
  readonly askedMs: number;
}

/** Engine, method and address → the engine's answer. */
const answers = new Map<string, Kept>();
/** An engine's name with the SHA-256 of an `Authorization` → when it last let that in. */
const admitted = new Map<string, number>();

/** What the engine answered a moment ago, for a caller whom it let in a moment ago. */
export async function recallAnswer(
  engine: string,
  authorization: string,
  question: string,
  nowMs: number,
): Promise<Response | undefined> {
  const kept = answers.get(question);
  if (!kept || sinceMs(kept.askedMs, nowMs) >= keptMs) return undefined;
  const admittedAtMs = admitted.get(`${engine} ${await sha256Hex(authorization)}`) ?? -Infinity;
  if (sinceMs(admittedAtMs, nowMs) >= admittedMs) return undefined;
  return new Response(kept.body, kept);
}

/** The engine let this caller in, at a route that no other header and no body opens. */
export async function noteAdmitted(engine: string, authorization: string, askedMs: number): Promise<void> {
  if (admitted.size >= mostAdmitted) admitted.clear();
  admitted.set(`${engine} ${await sha256Hex(authorization)}`, askedMs);
}

/**
 * Keeps an answer if it is one to keep; returns it to be sent, or `unavailable` when it breaks off. `askedMs`: before
 * the engine was asked.
 */
export async function keepAnswer(
  question: string,
  answer: Response,
  askedMs: number,
): Promise<Result<Response>> {
  const { status, headers } = answer;
  if (status !== 200 && status !== 204) return succeed(answer);
  let body: ArrayBuffer | null;
  try {
    body = answer.body ? await answer.arrayBuffer() : null;
  } catch {
    return fail({ kind: 'unavailable', problem: "the engine's answer broke off" });
  }
  // A write while the engine was asked may be what it has not told of.
  const written = askedMs <= forgottenMs;
  if (!written && (body?.byteLength ?? 0) <= mostBytes) {
    keep(question, { status, headers: new Headers(headers), body, askedMs });
  }
  return succeed(new Response(body, { status, headers }));
}

let bytesOfAll = 0;

/** The oldest make room. */
function keep(question: string, kept: Kept): void {
  drop(question);
  answers.set(question, kept);
  bytesOfAll += bytesOf(question, kept);
  for (const oldest of answers.keys()) {
    if (answers.size <= mostAnswers && bytesOfAll <= mostBytesOfAll) return;
    drop(oldest);
  }
}

function drop(question: string): void {
  const kept = answers.get(question);
  if (!kept) return;
  answers.delete(question);
  bytesOfAll -= bytesOf(question, kept);
}

function bytesOf(question: string, { body }: Kept): number {
  return question.length + (body?.byteLength ?? 0);
}

let forgottenMs = -Infinity;

/** A machine wrote something through this isolate. */
export function forgetAnswers(nowMs: number): void {
  forgottenMs = nowMs;
  answers.clear();
  bytesOfAll = 0;
}
