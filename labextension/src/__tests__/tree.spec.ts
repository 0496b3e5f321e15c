import { ApiError, IChildrenQuery, IListing } from '../model/api';
import { PAGE } from '../model/level';
import { ILine, TreeModel, glob } from '../model/tree';
import { IPage, IRow, Kind } from '../model/types';

function row(kind: Kind, scope: string, name: string): IRow {
  return { kind, scope, name, bytes: 1, length: 1, availability: 'none', created: null };
}

/** A lake with two scopes: `a` holds `size` datasets, `b` one container with three files. */
class Lake implements IListing {
  queries: IChildrenQuery[] = [];
  size = 1000;
  complete = true;
  snapshot = '1';
  fail: ApiError | null = null;

  async children(query: IChildrenQuery): Promise<IPage> {
    this.queries.push(query);
    if (this.fail && query.parent) {
      throw this.fail;
    }
    const all = this._all(query);
    const rows = all.slice(query.offset, query.offset + query.limit);
    const { complete, snapshot } = this;
    return { rows, total: all.length, complete: complete || !query.parent, snapshot, error: null };
  }

  private _all(query: IChildrenQuery): IRow[] {
    const { parent, order } = query;
    if (parent === '') {
      return [row('scope', 'a', 'a'), row('scope', 'b', 'b')];
    }
    if (parent === 'b') {
      return [row('container', 'b', 'box')];
    }
    if (parent === 'a') {
      const names = Array.from({ length: this.size }, (_, i) => `d${String(i).padStart(6, '0')}`)
        .filter(name => name.includes(query.pattern.replace(/\*/g, '')))
        .map(name => row('dataset', 'a', name));
      return order === 'asc' ? names : names.reverse();
    }
    return [0, 1, 2].map(i => row('file', 'b', `f${i}`));
  }
}

const line = (model: TreeModel, index: number) => model.get(index) as ILine;
const names = (model: TreeModel, from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => {
    const found = model.get(from + i);
    return found?.notice ?? found?.row?.name ?? null;
  });

describe('TreeModel', () => {
  let lake: Lake;
  let model: TreeModel;

  beforeEach(async () => {
    jest.useFakeTimers();
    lake = new Lake();
    model = new TreeModel(lake);
    await model.start();
  });

  afterEach(() => {
    model.dispose();
    jest.useRealTimers();
  });

  it('begins with the scopes', () => {
    expect(model.count).toBe(2);
    expect(names(model, 0, 3)).toEqual(['a', 'b', null]);
  });

  it('maps lines through nested levels', async () => {
    await model.toggle(line(model, 1));
    await model.toggle(line(model, 2));
    await model.toggle(line(model, 0));
    expect(model.count).toBe(2 + 1000 + 1 + 3);
    expect(names(model, 1001, 1006)).toEqual(['b', 'box', 'f0', 'f1', 'f2']);
    for (const index of [0, 1, 1000, 1001, 1002, 1005]) {
      const { level, at } = line(model, index);
      expect(model.indexOf(level, at)).toBe(index);
    }
    expect(model.parentOf(1004)).toBe(1002);
    expect(model.parentOf(0)).toBe(-1);
  });

  it('asks for a page once, and only for what is seen', async () => {
    await model.toggle(line(model, 0));
    lake.queries = [];
    model.ensure(PAGE + 5, PAGE + 60);
    model.ensure(PAGE + 5, PAGE + 60);
    await jest.runAllTimersAsync();
    expect(lake.queries.map(q => q.offset)).toEqual([PAGE]);
    expect(line(model, PAGE + 5).row?.name).toBe('d000204');
    expect(line(model, 900).row).toBeNull();
  });

  it('keeps expanded rows with their rows when the order changes', async () => {
    await model.toggle(line(model, 0));
    await model.toggle(line(model, 1));
    expect(names(model, 1, 3)).toEqual(['d000000', 'f0']);
    await model.sort('bytes', 'desc');
    expect(line(model, 1).row?.name).toBe('d000999');
    expect(model.count).toBe(2 + 1000);
    model.ensure(990, 1001);
    await jest.runAllTimersAsync();
    expect(names(model, 1000, 1002)).toEqual(['d000000', 'f0']);
  });

  it('holds the active row while rows above it come and go', async () => {
    await model.toggle(line(model, 0));
    model.active = 1001;
    expect(model.activeRow?.name).toBe('b');
    lake.size = 500;
    await model.refresh();
    expect(model.activeRow?.name).toBe('b');
    expect(model.active).toBe(501);
    await model.toggle(line(model, 0));
    expect(model.active).toBe(1);
  });

  it('falls back to the parent when the active row is collapsed away', async () => {
    await model.toggle(line(model, 0));
    model.active = 7;
    await model.toggle(line(model, 0));
    expect(model.activeRow?.name).toBe('a');
  });

  it('tells of an error in place of rows, and recovers', async () => {
    lake.fail = new ApiError('rucio_down', 'The lake does not answer.', 'retry', 503);
    await model.toggle(line(model, 0));
    expect(names(model, 0, 3)).toEqual(['a', 'error', 'b']);
    expect(line(model, 1).level.error?.message).toBe('The lake does not answer.');
    lake.fail = null;
    await model.refresh(line(model, 1).level);
    expect(line(model, 1).row?.name).toBe('d000000');
    expect(lake.queries[lake.queries.length - 1].refresh).toBe(true);
  });

  it('looks at a growing listing until it is complete', async () => {
    lake.complete = false;
    lake.size = 12;
    await model.toggle(line(model, 0));
    expect(line(model, 1).notice).toBe('listing');
    lake.size = 30;
    await jest.advanceTimersByTimeAsync(1100);
    expect(model.count).toBe(2 + 1 + 30);
    lake.complete = true;
    lake.size = 40;
    const first = model.indexOf(line(model, 1).level, 0);
    await jest.advanceTimersByTimeAsync(1100);
    expect(line(model, 1).notice).toBe('listed');
    expect(model.indexOf(line(model, 1).level, 0)).toBe(first); // a hand above a row shall hit that row
    expect(model.count).toBe(2 + 1 + 40);
    lake.queries = [];
    await jest.advanceTimersByTimeAsync(10000);
    expect(lake.queries).toEqual([]);
  });

  it('answers many hints with one look', async () => {
    await model.toggle(line(model, 0));
    lake.queries = [];
    for (let i = 0; i < 20; i++) {
      model.hint('a');
      model.hint('never seen');
    }
    await jest.advanceTimersByTimeAsync(2000);
    expect(lake.queries).toHaveLength(1);
  });

  it('drops answers to an earlier question', async () => {
    await model.toggle(line(model, 0));
    const first = model.sort('name', 'desc');
    const second = model.sort('name', 'asc');
    await Promise.all([first, second]);
    expect(line(model, 1).row?.name).toBe('d000000');
  });

  it('filters datasets, opens the scopes and closes them again', async () => {
    await model.setFilter('d00007');
    await jest.runAllTimersAsync();
    expect(names(model, 0, 3)).toEqual(['a', 'd000070', 'd000071']);
    expect(lake.queries.filter(q => q.parent === 'a').pop()?.pattern).toBe('*d00007*');
    await model.setFilter('b:box');
    await jest.runAllTimersAsync();
    expect(names(model, 0, 3)).toEqual(['a', 'b', 'box']);
    await model.setFilter('');
    expect(names(model, 0, 3)).toEqual(['a', 'b', null]);
  });

  it('says empty', async () => {
    lake.size = 0;
    await model.toggle(line(model, 0));
    expect(names(model, 0, 3)).toEqual(['a', 'empty', 'b']);
  });
});

describe('glob', () => {
  it.each([
    ['', ''],
    ['zee', '*zee*'],
    ['zee*root', 'zee*root']
  ])('%s: %s', (text, pattern) => expect(glob(text)).toBe(pattern));
});
