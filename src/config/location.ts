// Where the feed's object lives, as `FEED_LOCATION` names it. It is decided when the object is made: no object moves.

/** Where it is best to be near. Of an object that is there already it changes nothing. */
const near = [
  'wnam',
  'enam',
  'sam',
  'weur',
  'eeur',
  'apac',
  'apac-ne',
  'apac-se',
  'oc',
  'afr',
  'me',
] as const;

/** What it may not leave. It is part of the object's id: with another one it is another object, which knows nothing. */
const jurisdictions = ['eu', 'us', 'fedramp', 'fedramp-high'] as const;

export const feedLocations = [...near, ...jurisdictions];

/** Empty: near whoever asks first. */
export type FeedLocation = '' | (typeof feedLocations)[number];

export function isJurisdiction(location: FeedLocation): location is (typeof jurisdictions)[number] {
  return (jurisdictions as readonly string[]).includes(location);
}
