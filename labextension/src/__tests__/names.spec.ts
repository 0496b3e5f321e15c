import { fallbackName } from '../lake';
import { checkName, isIdentifier, languageKey, refuses } from '../model/names';

describe('checkName', () => {
  it.each([
    ['', 'empty'],
    ['2x', 'syntax'],
    ['a b', 'syntax'],
    ['a;import os', 'syntax'],
    ['__x', 'syntax'],
    ['naïve', 'syntax'],
    ['for', 'keyword'],
    ['list', 'keyword'],
    ['namespace', 'keyword'],
    ['dmsp', 'keyword'],
    ['taken', 'taken'],
    ['events', null]
  ])('%s: %s', (name, problem) => {
    expect(checkName(name, new Set(['taken']))).toBe(problem);
  });

  it('refuses all but taken names', () => {
    expect(refuses('taken')).toBe(false);
    expect(refuses('keyword')).toBe(true);
    expect(refuses(null)).toBe(false);
  });

  it('lets nothing but plain names into code', () => {
    expect(isIdentifier("x'] or 1 #")).toBe(false);
    expect(isIdentifier('x'.repeat(81))).toBe(false);
  });
});

describe('languageKey', () => {
  it.each([
    ['python', 'python'],
    ['C++', 'c++'],
    ['c++17', 'c++'],
    ['R', 'r'],
    ['julia', 'julia'],
    ['fortran', ''],
    [undefined, '']
  ])('%s: %s', (name, key) => expect(languageKey(name)).toBe(key));
});

describe('fallbackName', () => {
  it.each([
    ['zee.events.root', 'events'],
    ['run 42/files', 'run_42'],
    ['2026', 'data_2026'],
    ['<script>', 'script'],
    ['for', 'for_data']
  ])('%s: %s', (name, variable) => expect(fallbackName(name)).toBe(variable));
});
