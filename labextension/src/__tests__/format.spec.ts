import { formatBytes, formatCount, formatSeconds, parseTime, percent } from '../model/format';

describe('format', () => {
  it.each([
    [null, '–'],
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.00 kB'],
    [999500, '1.00 MB'],
    [1234567890, '1.23 GB'],
    [5e12, '5.00 TB'],
    [12.34e6, '12.3 MB']
  ])('bytes %s: %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it.each([
    [null, '–'],
    [999, '999'],
    [12000, '12\u202f000'],
    [1234567, '1\u202f234\u202f567']
  ])('count %s: %s', (count, text) => expect(formatCount(count)).toBe(text));

  it.each([
    [0.2, '1 s'],
    [59, '59 s'],
    [90, '2 min'],
    [7200, '2 h'],
    [14 * 86400, '14 d']
  ])('seconds %s: %s', (seconds, text) => expect(formatSeconds(seconds)).toBe(text));

  it('reads both kinds of time', () => {
    expect(parseTime(0)?.toISOString()).toBe('1970-01-01T00:00:00.000Z');
    expect(parseTime('2026-01-02T00:00:00Z')?.getTime()).toBe(Date.UTC(2026, 0, 2));
    expect(parseTime(null)).toBeNull();
    expect(parseTime('never')).toBeNull();
  });

  it('counts bytes before files, and never past the end', () => {
    const of = { files_total: 4, files_ready: 1, bytes_total: 100, bytes_ready: 99 };
    expect(percent(of)).toBe(99);
    expect(percent({ ...of, bytes_total: 0 })).toBe(25);
    expect(percent({ ...of, bytes_ready: 300 })).toBe(100);
    expect(percent({ ...of, bytes_total: 0, files_total: 0 })).toBe(0);
  });
});
