// Where the feed's object lives, as `FEED_LOCATION` names it. It is decided when the object is made: no object moves.

/** Location hints: where the object is best made. They change nothing for an object that exists. */
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

/** The object may not leave these. A jurisdiction is part of its id: another one makes another, empty object. */
const jurisdictions = ['eu', 'us', 'fedramp', 'fedramp-high'] as const;

export const feedLocations = [...near, ...jurisdictions];

/** Empty: the object is made near the first request. */
export type FeedLocation = '' | (typeof feedLocations)[number];

export function isJurisdiction(location: FeedLocation): location is (typeof jurisdictions)[number] {
  return (jurisdictions as readonly string[]).includes(location);
}
