/**
 * Numbers and times as people read them.
 */

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];

/** Bytes in SI units with three significant digits, as in "1.25 GB"; "–" when unknown. */
export function formatBytes(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined || !Number.isFinite(bytes)) {
    return '–';
  }
  let value = bytes;
  let unit = 0;
  // 999.5 would be shown as "1000": step up before that.
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** A count with thin spaces between thousands, as in "12 000"; "–" when unknown. */
export function formatCount(count: number | null | undefined): string {
  if (count === null || count === undefined || !Number.isFinite(count)) {
    return '–';
  }
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** Seconds as the largest fitting unit, as in "45 s", "3 min", "2 h" or "14 d". */
export function formatSeconds(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 59.5) {
    return `${Math.max(1, Math.round(s))} s`;
  }
  if (s < 3570) {
    return `${Math.round(s / 60)} min`;
  }
  if (s < 47 * 3600) {
    return `${Math.round(s / 3600)} h`;
  }
  return `${Math.round(s / 86400)} d`;
}

/** A time of the API, seconds since 1970 or ISO 8601, as a Date; null when absent or unreadable. */
export function parseTime(value: string | number | null | undefined): Date | null {
  if (value === null || value === undefined || value === '') {
    return null;
  }
  const date = typeof value === 'number' ? new Date(value * 1000) : new Date(value);
  return Number.isNaN(date.getTime()) ? null : date;
}

/** A date and time in the user's locale; "–" when unknown. */
export function formatTime(value: string | number | null | undefined): string {
  const date = parseTime(value);
  return date ? date.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' }) : '–';
}

/** The share of an attachment that has arrived, 0 to 100, by bytes where they are known, else by files. */
export function percent(of: {
  files_total: number | null;
  files_ready: number;
  bytes_total: number | null;
  bytes_ready: number;
}): number {
  const share = of.bytes_total
    ? of.bytes_ready / of.bytes_total
    : of.files_total
      ? of.files_ready / of.files_total
      : 0;
  return Math.max(0, Math.min(100, Math.floor(share * 100)));
}
