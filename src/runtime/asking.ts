// Questions that many requests ask at once. One is under way, and the requests that come meanwhile share the next one: how
// often D1, or the feed's object, is asked does not depend on how many come. A question has a limit: silence is an outage,
// too.
//
// A request's I/O ends with the request, and with it the question that it asked for others. So each waits for that no
// longer than its own limit, and then asks itself. A mistake here lets requests hang.

import { answerWithin } from './wait.ts';

/** The limit of a question where none is given. */
const answerMs = 1_000;
/** How much later than its limit a question of another request is given up. */
const slackMs = 100;
/** In one question: D1 takes a text of at most 2 MB as a value. */
const mostSubjects = 1_000;

interface Question<Answer> {
  readonly subjects: Set<string>;
  /** Null: not asked yet. */
  reply: Promise<ReadonlyMap<string, Answer>> | null;
}

/**
 * Asks about a subject. `recall`: what is known of it by now, where that makes the question superfluous. Throws when `send`
 * fails, leaves the subject out, or is silent.
 */
type Ask<At, Answer> = (at: At, subject: string, recall?: () => Answer | undefined) => Promise<Answer>;

/**
 * `send` asks about some subjects at once; one that is not in its answer has failed. `onFailure` is called once for each
 * question without an answer, before those who wait for it learn of that.
 */
export function createAsking<At, Answer>(
  send: (at: At, subjects: readonly string[]) => Promise<ReadonlyMap<string, Answer>>,
  onFailure: (error: unknown) => void,
  limitMs = answerMs,
): Ask<At, Answer> {
  let underWay: Question<Answer> | null = null;
  let next: Question<Answer> = { subjects: new Set(), reply: null };

  /** The next question, with this subject in it. */
  function join(subject: string): Question<Answer> {
    if (next.reply || next.subjects.size >= mostSubjects) next = { subjects: new Set(), reply: null };
    next.subjects.add(subject);
    return next;
  }

  function put(at: At, question: Question<Answer>): Promise<ReadonlyMap<string, Answer>> {
    const reply = answerWithin(send(at, [...question.subjects]), limitMs)
      .catch((error: unknown) => {
        onFailure(error);
        throw error;
      })
      .finally(() => over(question));
    underWay = question;
    question.reply = reply;
    return reply;
  }

  function over(question: Question<Answer>): void {
    if (underWay === question) underWay = null;
  }

  /** Waits for a question of another request; true: that request has ended, and its question with it. */
  function isGone(question: Question<Answer>): Promise<boolean> {
    const settled = Promise.resolve(question.reply).then(
      () => false,
      () => false,
    );
    return answerWithin(settled, limitMs + slackMs).catch(() => {
      over(question);
      return true;
    });
  }

  async function ask(at: At, subject: string, recall?: () => Answer | undefined): Promise<Answer> {
    const question = join(subject);
    if (underWay) {
      await isGone(underWay);
      const known = recall?.();
      if (known !== undefined) {
        question.subjects.delete(subject);
        return known;
      }
    }
    const isAsked = question.reply !== null;
    if (isAsked && (await isGone(question))) return ask(at, subject, recall);
    const answer = (await (question.reply ?? put(at, question))).get(subject);
    if (answer === undefined) throw new Error('it was not answered');
    return answer;
  }

  return ask;
}
