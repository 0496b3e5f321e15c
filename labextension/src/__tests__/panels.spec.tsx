import { nullTranslator } from '@jupyterlab/translation';
import { act, fireEvent, render, screen } from '@testing-library/react';
import * as React from 'react';
import { AttachForm, NameField } from '../panels/dialog';
import { numbers } from '../panels/attached';
import { Line } from '../panels/row';
import { keyCommand } from '../panels/tree';
import { Level } from '../model/level';
import { IRow } from '../model/types';
import { attachment } from './fixtures';

const trans = nullTranslator.load('jupyterhub_dmsp');

function show(row: IRow, change: Partial<React.ComponentProps<typeof Line>> = {}) {
  const level = new Level('a', 1, null);
  level.apply(0, { rows: [row], total: 1, complete: true, snapshot: '1', error: null });
  const nothing = () => undefined;
  render(
    <Line
      line={{ level, at: 0, row, notice: null, expanded: false }}
      index={3}
      id="line"
      top={0}
      active={false}
      attachment={undefined}
      filtered={false}
      trans={trans}
      onActivate={nothing}
      onToggle={nothing}
      onAttach={nothing}
      onRetry={nothing}
      {...change}
    />
  );
}

const dataset: IRow = {
  kind: 'dataset',
  scope: 'a',
  name: '<img src=x onerror=alert(1)>',
  bytes: 1e9,
  length: 12,
  availability: 'part',
  created: null
};

describe('Line', () => {
  it('shows a hostile name as text', () => {
    show(dataset);
    expect(document.querySelector('img')).toBeNull();
    expect(screen.getByText(dataset.name).tagName).toBe('SPAN');
  });

  it('is a row that says what it is', () => {
    show({ ...dataset, name: 'zee' });
    const row = screen.getByRole('row', { name: /^zee, dataset, 1.00 GB, 12 files, Partly/ });
    expect(row.getAttribute('aria-expanded')).toBe('false');
    expect(row.getAttribute('aria-level')).toBe('2');
    expect(row.getAttribute('data-did')).toBe('a:zee');
  });

  it('attaches without expanding', () => {
    const onAttach = jest.fn();
    const onToggle = jest.fn();
    show({ ...dataset, name: 'zee' }, { onAttach, onToggle });
    fireEvent.click(screen.getByRole('button', { name: 'Attach zee' }));
    expect(onAttach).toHaveBeenCalledTimes(1);
    expect(onToggle).not.toHaveBeenCalled();
  });

  it('offers nothing to attach on a scope', () => {
    show({ ...dataset, kind: 'scope', name: 'a' });
    expect(screen.queryByRole('button')).toBeNull();
  });

  it('shows how much has come', () => {
    const item = attachment({ bytes_ready: 34 });
    show({ ...dataset, name: 'zee' }, { attachment: item });
    expect(screen.getByText('34 %')).toBeTruthy();
  });
});

describe('numbers', () => {
  it('tells files, bytes, rate and time left', () => {
    const item = attachment({ files_ready: 3, bytes_ready: 20, rate_bytes_per_s: 5, eta_s: 16 });
    const text = numbers(item, trans).replace(/\u00a0/g, ' ');
    expect(text).toBe('3 of 10 files · 20 B of 100 B · 5 B/s · 16 s left');
  });

  it('says nothing of what it does not know', () => {
    expect(numbers(attachment({ files_total: 0, bytes_total: 0 }), trans)).toBe('');
  });
});

describe('AttachForm', () => {
  const subject = { did: 'a:b', kind: null, bytes: null, files: null, here: false };

  it('takes proposals until the user has typed', () => {
    const form = new AttachForm(subject, 'python', 'N.ipynb');
    form.propose('one');
    form.type(' mine ');
    form.propose('two');
    expect(form.variable).toBe('mine');
  });

  it('is valid with a taken name, not with a keyword', () => {
    const form = new AttachForm(subject, 'python', 'N.ipynb');
    form.learn({ taken: new Set(['x']) });
    form.type('x');
    expect(form.problem).toBe('taken');
    expect(form.valid).toBe(true);
    form.type('for');
    expect(form.valid).toBe(false);
  });
});

describe('NameField', () => {
  const subject = { did: 'a:b', kind: null, bytes: null, files: null, here: false };

  it('selects a late proposal where the user is about to type', () => {
    const form = new AttachForm(subject, 'python', null);
    form.propose('first');
    render(<NameField form={form} refused={false} hint="h" trans={trans} />);
    const field = screen.getByLabelText<HTMLInputElement>('Variable name');
    field.focus();
    field.select();
    act(() => form.propose('a_better_one'));
    expect(field.value).toBe('a_better_one');
    expect([field.selectionStart, field.selectionEnd]).toEqual([0, 12]);
    fireEvent.change(field, { target: { value: 'l' } });
    field.setSelectionRange(1, 1);
    fireEvent.change(field, { target: { value: 'la' } });
    expect(field.selectionStart).toBe(field.selectionEnd);
  });

  it('takes no focus that is elsewhere', () => {
    const form = new AttachForm(subject, 'python', null);
    render(<NameField form={form} refused={false} hint="h" trans={trans} />);
    act(() => form.propose('late'));
    expect(document.activeElement).toBe(document.body);
  });
});

describe('keyCommand', () => {
  const key = (name: string, change = {}) =>
    keyCommand({ key: name, ctrlKey: false, altKey: false, metaKey: false, ...change });

  it('leaves shortcuts of others alone', () => {
    expect(key('a')).toBe('attach');
    expect(key('a', { ctrlKey: true })).toBeNull();
    expect(key('Enter')).toBe('open');
    expect(key('Enter', { ctrlKey: true })).toBe('attach');
    expect(key('Enter', { altKey: true })).toBe('attach');
    expect(key('x')).toBeNull();
  });
});
