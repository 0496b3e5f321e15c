/**
 * Icons: LabIcons for tabs, menus and buttons; light inline glyphs for the rows of long lists.
 */
import { LabIcon } from '@jupyterlab/ui-components';
import * as React from 'react';
import attachSvg from '../style/icons/attach.svg';
import lakeSvg from '../style/icons/lake.svg';
import { AttachmentState, Availability, Kind } from './model/types';

/** The Data Lake. */
export const lakeIcon = new LabIcon({ name: 'jupyterhub-dmsp:lake', svgstr: lakeSvg });

/** Attach a dataset. */
export const attachIcon = new LabIcon({ name: 'jupyterhub-dmsp:attach', svgstr: attachSvg });

const line = {
  fill: 'none',
  stroke: 'currentColor',
  strokeWidth: 1.4,
  strokeLinecap: 'round',
  strokeLinejoin: 'round'
} as const;

const SHAPES: { [name: string]: JSX.Element } = {
  scope: (
    <path
      {...line}
      d="M2 4.5A1 1 0 0 1 3 3.5h3l1.5 1.5H13a1 1 0 0 1 1 1V12a1 1 0 0 1-1 1H3a1 1 0 0 1-1-1z"
    />
  ),
  container: <path {...line} d="M2.5 5 8 2.5 13.5 5v6L8 13.5 2.5 11zM2.5 5 8 7.5 13.5 5M8 7.5v6" />,
  dataset: <path {...line} d="M8 2.5 14 5.5 8 8.5 2 5.5zM2 8.5l6 3 6-3M2 11.2l6 3 6-3" />,
  file: <path {...line} d="M4 2.5h5l3 3v8H4zM9 2.5v3h3" />,
  all: (
    <>
      <circle cx="8" cy="8" r="6" fill="currentColor" />
      <path d="m5.2 8.2 2 2 3.6-4" fill="none" stroke="var(--jp-layout-color1)" strokeWidth="1.6" />
    </>
  ),
  part: (
    <>
      <circle cx="8" cy="8" r="5.3" {...line} />
      <path d="M8 2.7a5.3 5.3 0 0 1 0 10.6z" fill="currentColor" />
    </>
  ),
  none: <circle cx="8" cy="8" r="5.3" {...line} strokeDasharray="2.2 2.2" />,
  unknown: <path {...line} d="M6 6.2c0-2.6 4.2-2.6 4.2 0C10.2 8 8 7.9 8 9.8M8 12.2v.1" />,
  moving: <path {...line} d="M13.3 8A5.3 5.3 0 1 1 8 2.7M8 5v6M5.7 8.7 8 11l2.3-2.3" />,
  warning: <path {...line} d="M8 2.5 14.5 13.5h-13zM8 6.5v3.2M8 11.6v.1" />,
  caret: <path d="M6 4.5 10 8l-4 3.5z" fill="currentColor" />
};

/** A 16-pixel glyph in the colour of the text. Says nothing to screen readers: the text beside it does. */
export function Glyph(props: { shape: string; className?: string }): JSX.Element {
  return (
    <svg
      aria-hidden="true"
      focusable="false"
      className={`jp-DMSP-glyph ${props.className ?? ''}`}
      viewBox="0 0 16 16"
    >
      {SHAPES[props.shape]}
    </svg>
  );
}

/** The glyph of a kind of row. */
export function kindShape(kind: Kind): string {
  return kind;
}

/** The glyph of an availability. */
export function availabilityShape(availability: Availability): string {
  return availability;
}

/** The glyph of an attachment's state. */
export function stateShape(state: AttachmentState): string {
  switch (state) {
    case 'ready':
      return 'all';
    case 'stuck':
    case 'failed':
      return 'warning';
    case 'released':
      return 'none';
    default:
      return 'moving';
  }
}
