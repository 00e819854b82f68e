// Questions to D1 that many wait for at once. One is under way, and who comes meanwhile asks together in the next: how
// often D1 is asked does not follow how many come. Nobody waits longer for D1 than a second: silence is an outage, too.
//
// A request's I/O ends with the request, and with it the question that it asked for others: each waits for that no
// longer than its own limit, and asks itself then. A mistake here lets requests hang.

import { answerMs } from './ask.ts';
import { answerWithin } from '../runtime/wait.ts';

/** So much later than its own end is heard of a question whose request is still there. */
const slackMs = 100;
/** Of one question: D1 takes a text of 2 MB as a value. */
const mostSubjects = 1_000;

interface Question<Answer> {
  readonly subjects: Set<string>;
  /** Null: not asked yet. */
  reply: Promise<ReadonlyMap<string, Answer>> | null;
}

/** How D1 is asked about some subjects at once. One that it doesn't answer about has failed by itself. */
export type Send<At, Answer> = (at: At, subjects: readonly string[]) => Promise<ReadonlyMap<string, Answer>>;

/**
 * Asks about a subject. `recall`: what is known about it by now, where that makes a question superfluous. Throws when D1
 * fails or is silent.
 */
export type Ask<At, Answer> = (at: At, subject: string, recall?: () => Answer | undefined) => Promise<Answer>;

/** `onFailure` is told of each question without an answer, once, before those who wait for it are. */
export function createAsking<At, Answer>(
  send: Send<At, Answer>,
  onFailure: (error: unknown) => void,
): Ask<At, Answer> {
  let underWay: Question<Answer> | null = null;
  let next: Question<Answer> = { subjects: new Set(), reply: null };

  /** The one that this subject is in from now on. */
  function join(subject: string): Question<Answer> {
    if (next.reply || next.subjects.size >= mostSubjects) next = { subjects: new Set(), reply: null };
    next.subjects.add(subject);
    return next;
  }

  function put(at: At, question: Question<Answer>): Promise<ReadonlyMap<string, Answer>> {
    const reply = answerWithin(send(at, [...question.subjects]), answerMs)
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

  /** Waits for a question of another request: its answer or error, or `gone` together with that request. */
  async function outcome(question: Question<Answer>): Promise<'answered' | 'failed' | 'gone'> {
    const settled = question.reply?.then(
      () => 'answered' as const,
      () => 'failed' as const,
    );
    const gone = (): 'gone' => {
      over(question);
      return 'gone';
    };
    return settled ? answerWithin(settled, answerMs + slackMs).catch(gone) : 'gone';
  }

  async function ask(at: At, subject: string, recall?: () => Answer | undefined): Promise<Answer> {
    const question = join(subject);
    if (underWay) {
      await outcome(underWay);
      const known = recall?.();
      if (known !== undefined) {
        question.subjects.delete(subject);
        return known;
      }
    }
    const isAsked = question.reply !== null;
    if (isAsked && (await outcome(question)) === 'gone') return ask(at, subject, recall);
    const answer = (await (question.reply ?? put(at, question))).get(subject);
    if (answer === undefined) throw new Error('it was not answered');
    return answer;
  }

  return ask;
}
