// Two versions of one label map that grew from the same base. Pure functions on bytes.

/** Take over what either side changed; where both did, and differently, mine counts.
 * Returns {labels, mine, theirs, both}: the merged map, and the pixels changed by one side only or by both differently. */
export function combine(base, mine, theirs) {
  const labels = mine.slice();
  const count = { mine: 0, theirs: 0, both: 0 };
  for (let i = 0; i < base.length; i++) {
    if (mine[i] === theirs[i]) continue;
    if (mine[i] === base[i]) {
      labels[i] = theirs[i];
      count.theirs++;
    } else if (theirs[i] === base[i]) count.mine++;
    else count.both++;
  }
  return { labels, ...count };
}
