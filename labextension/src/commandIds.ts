/** The commands of the extension. */
export const CommandIDs = {
  /** Show the sidebar. */
  open: 'dmsp:open',
  /** Attach the chosen dataset, or `{did, variable?, dialog?}`. */
  attach: 'dmsp:attach',
  /** Read the chosen part of the lake again. */
  refresh: 'dmsp:refresh',
  /** Show metadata, rules and replicas of the chosen dataset. */
  details: 'dmsp:details',
  /** Copy the chosen DID. */
  copyDid: 'dmsp:copy-did',
  /** Copy the path that the chosen dataset has on scratch. */
  copyPath: 'dmsp:copy-path'
} as const;
