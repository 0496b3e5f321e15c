import { nullTranslator } from '@jupyterlab/translation';
import { act, fireEvent, render, screen } from '@testing-library/react';
import * as React from 'react';
import { ApiError } from '../model/api';
import { IAttachment, IFailures } from '../model/types';
import { Failures, lacksFiles } from '../panels/failures';
import { attachment } from './fixtures';

const trans = nullTranslator.load('jupyterhub_dmsp');
const stuck = attachment({ state: 'stuck', did: 'a:set' });
const two: IFailures = {
  files: [
    { did: 'a:one', reason: 'The file is missing at SITE.' },
    { did: 'a:<b>two</b>', reason: 'The file at SITE is damaged.' }
  ],
  total: 52
};

async function unfold(): Promise<void> {
  const details = screen.getByRole('group') as HTMLDetailsElement;
  await act(async () => {
    details.open = true;
    fireEvent(details, new Event('toggle'));
  });
}

describe('lacksFiles', () => {
  it.each<[Partial<IAttachment>, boolean]>([
    [{ state: 'stuck' }, true],
    [{ state: 'failed', error: { code: 'not_landed', message: '', action: 'retry' } }, true],
    [{ state: 'failed', error: { code: 'quota', message: '', action: 'release' } }, false],
    [{ state: 'replicating' }, false],
    [{ state: 'ready' }, false]
  ])('%j: %s', (change, expected) => {
    expect(lacksFiles(attachment(change))).toBe(expected);
  });
});

describe('Failures', () => {
  it('asks when it is opened and not before, and names each file with its reason', async () => {
    const ask = jest.fn(() => Promise.resolve(two));
    const { rerender } = render(<Failures item={stuck} ask={ask} trans={trans} />);
    rerender(<Failures item={{ ...stuck, seq: 2, updated_at: 1 }} ask={ask} trans={trans} />);
    expect(ask).not.toHaveBeenCalled();
    await unfold();
    expect(ask.mock.calls).toEqual([['x']]);
    const lines = screen.getAllByRole('listitem').map(line => line.textContent);
    expect(lines).toEqual([
      'a:one The file is missing at SITE.',
      'a:<b>two</b> The file at SITE is damaged.',
      'and 50 more'
    ]);
    expect(document.querySelector('b')).toBeNull();
  });

  it('asks again when more files have come, not at each poll', async () => {
    const ask = jest.fn(() => Promise.resolve(two));
    const { rerender } = render(<Failures item={stuck} ask={ask} trans={trans} />);
    await unfold();
    await act(async () =>
      rerender(<Failures item={{ ...stuck, seq: 3 }} ask={ask} trans={trans} />)
    );
    expect(ask).toHaveBeenCalledTimes(1);
    await act(async () =>
      rerender(<Failures item={{ ...stuck, files_ready: 4 }} ask={ask} trans={trans} />)
    );
    expect(ask).toHaveBeenCalledTimes(2);
  });

  it('says what is wrong and tries again', async () => {
    const ask = jest
      .fn<Promise<IFailures>, [string]>()
      .mockRejectedValueOnce(
        new ApiError('rucio_down', 'The data lake does not answer.', 'retry', 503)
      )
      .mockResolvedValueOnce({ files: [], total: 0 });
    render(<Failures item={stuck} ask={ask} trans={trans} />);
    await unfold();
    expect(screen.getByRole('alert').textContent).toContain('The data lake does not answer.');
    await act(async () => {
      fireEvent.click(screen.getByRole('button', { name: 'Retry' }));
    });
    expect(screen.queryByRole('alert')).toBeNull();
    expect(screen.getByText('None: they are on their way.')).toBeTruthy();
  });
});
