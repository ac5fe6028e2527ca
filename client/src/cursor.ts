/**
 * Tells whether position `a` is not covered by `b`: it is higher or, being of
 * another epoch, cannot be compared (protocol 3.2 to 3.5). Sequences have no
 * leading zeros, so the longer one is the higher.
 */
export const isAfter = (a: string, b: string): boolean =>
  a.split('-')[0] !== b.split('-')[0] || a.length > b.length || (a.length === b.length && a > b);
