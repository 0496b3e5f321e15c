/**
 * The client of the server extension: one method per endpoint, every failure an `ApiError`.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import {
  Action,
  BindingCode,
  IAttachment,
  IAttachments,
  IBinding,
  IDetails,
  IFailures,
  IFault,
  IPage,
  IStatus,
  Order,
  SortKey
} from './types';

/** How long a request may take, in milliseconds: longer than the server's own limit towards the lake. */
export const TIMEOUT = 60000;

/**
 * Pauses in milliseconds between tries of a change while nobody answers: longer together than the platform needs to
 * start its proxy again. Every change may be asked for twice: it names what shall be, and the server takes it as such.
 */
export const PAUSES = [300, 700, 1500, 3000, 5000];

/** What a proxy says, or a page in its place, when there is nobody behind it. */
const NOBODY = [502, 503, 504];

/** A failed request as one sentence and one way out. */
export class ApiError extends Error implements IFault {
  constructor(
    readonly code: string,
    message: string,
    readonly action: Action,
    readonly status: number,
    readonly request_id?: string
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

/** Any thrown value as a fault that can be shown. */
export function asFault(error: unknown): IFault {
  if (error instanceof ApiError) {
    return error;
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'unexpected', message, action: 'retry' };
}

/** What to ask a listing for. */
export interface IChildrenQuery {
  parent: string;
  offset: number;
  limit: number;
  sort: SortKey;
  order: Order;
  pattern: string;
  refresh?: boolean;
}

/** What to ask an attachment for. Lifetime in seconds. */
export interface IAttachRequest {
  did: string;
  variable?: string;
  notebook?: string;
  lifetime?: number;
}

/** The part of the client that the tree needs. */
export interface IListing {
  children(query: IChildrenQuery): Promise<IPage>;
}

type Query = { [key: string]: string | number | boolean | undefined };

/** The REST client. */
export class LakeApi implements IListing {
  constructor(
    private _settings: ServerConnection.ISettings = ServerConnection.makeSettings(),
    private _pauses: readonly number[] = PAUSES
  ) {}

  /** `GET status`. */
  status(): Promise<IStatus> {
    return this._call('GET', 'status');
  }

  /** `GET children`: one page below a parent ("" = the scopes). */
  children(query: IChildrenQuery): Promise<IPage> {
    return this._call('GET', 'children', {
      ...query,
      pattern: query.pattern || undefined,
      refresh: query.refresh || undefined
    });
  }

  /** `GET did`: everything about one DID. */
  details(did: string): Promise<IDetails> {
    return this._call('GET', 'did', { did });
  }

  /** `GET attachments`. */
  attachments(): Promise<IAttachments> {
    return this._call('GET', 'attachments');
  }

  /** `GET attachments/{id}`. */
  attachment(id: string): Promise<IAttachment> {
    return this._call('GET', `attachments/${encodeURIComponent(id)}`);
  }

  /** `GET attachments/{id}/failures`: asks the lake, so not in a poll. */
  failures(id: string): Promise<IFailures> {
    return this._call('GET', `attachments/${encodeURIComponent(id)}/failures`);
  }

  /** `POST attachments`: the same DID again gives the same attachment. */
  attach(request: IAttachRequest): Promise<IAttachment> {
    return this._call('POST', 'attachments', {}, request);
  }

  /** `DELETE attachments/{id}`: cancels what is on its way, releases what is there. */
  async release(id: string): Promise<void> {
    await this._call('DELETE', `attachments/${encodeURIComponent(id)}`);
  }

  /** `POST attachments/{id}/retry`. */
  retry(id: string): Promise<IAttachment> {
    return this._call('POST', `attachments/${encodeURIComponent(id)}/retry`, {}, {});
  }

  /** `POST attachments/{id}/extend`: lifetime in seconds from now. */
  extend(id: string, lifetime: number): Promise<IAttachment> {
    return this._call('POST', `attachments/${encodeURIComponent(id)}/extend`, {}, { lifetime });
  }

  /** `PUT bindings`: remembers the variable for the notebook's kernels; the code binds it in a running one. */
  async bind(notebook: string, variable: string, attachment: string): Promise<BindingCode> {
    const body = { notebook, variable, attachment };
    return (await this._call<{ code: BindingCode }>('PUT', 'bindings', {}, body)).code;
  }

  /** `GET bindings` of a notebook. */
  async bindings(notebook: string): Promise<IBinding[]> {
    return (await this._call<{ bindings: IBinding[] }>('GET', 'bindings', { notebook })).bindings;
  }

  /** `DELETE bindings`. */
  async unbind(notebook: string, variable: string): Promise<void> {
    await this._call('DELETE', 'bindings', { notebook, variable });
  }

  /** `POST variables/suggest`: a free name for a DID in a language. */
  async suggest(did: string, taken: string[], language: string): Promise<string> {
    const body = { did, taken, language };
    return (await this._call<{ variable: string }>('POST', 'variables/suggest', {}, body)).variable;
  }

  /** One request; a change is asked for again while nobody answers. Reading is not: whoever reads asks again anyway. */
  private async _call<T>(
    method: string,
    path: string,
    query: Query = {},
    body?: unknown
  ): Promise<T> {
    const pauses = method === 'GET' ? [] : this._pauses;
    for (let tries = 0; ; tries++) {
      try {
        return await this._once<T>(method, path, query, body);
      } catch (error) {
        if (tries && method === 'DELETE' && (error as ApiError).status === 404) {
          return null as T; // it was done the first time, and the answer got lost
        }
        if (tries === pauses.length || !Private.unheard(error)) {
          throw error;
        }
        await new Promise(resolve => setTimeout(resolve, pauses[tries]));
      }
    }
  }

  private async _once<T>(method: string, path: string, query: Query, body: unknown): Promise<T> {
    const search = URLExt.objectToQueryString(
      Object.fromEntries(
        Object.entries(query)
          .filter(([, value]) => value !== undefined)
          .map(([key, value]) => [key, String(value)])
      )
    );
    const url = URLExt.join(this._settings.baseUrl, 'dmsp/v1', path) + search;
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), TIMEOUT);
    try {
      const init: RequestInit = { method, signal: abort.signal };
      if (body !== undefined) {
        init.body = JSON.stringify(body);
      }
      const response = await ServerConnection.makeRequest(url, init, this._settings);
      return await this._read<T>(response);
    } catch (error) {
      if (error instanceof ApiError) {
        throw error;
      }
      throw abort.signal.aborted
        ? new ApiError('timeout', 'The Jupyter server did not answer in time.', 'retry', 0)
        : new ApiError('unreachable', 'The Jupyter server cannot be reached.', 'retry', 0);
    } finally {
      clearTimeout(timer);
    }
  }

  private async _read<T>(response: Response): Promise<T> {
    const text = await response.text();
    let data: unknown = null;
    try {
      data = text ? JSON.parse(text) : null;
    } catch {
      data = null; // a proxy's page, not ours: judged by its status below
    }
    if (response.ok) {
      return data as T;
    }
    const fault = (data as { error?: Partial<IFault> } | null)?.error;
    if (fault?.message) {
      throw new ApiError(
        fault.code ?? 'unknown',
        fault.message,
        fault.action ?? 'none',
        response.status,
        fault.request_id
      );
    }
    throw Private.byStatus(response.status);
  }
}

namespace Private {
  /** An answer that is not ours: from Jupyter's own login check or from a proxy. */
  export function byStatus(status: number): ApiError {
    if (status === 401 || status === 403) {
      return new ApiError('session', 'Your session has ended.', 'login', status);
    }
    if (status === 404) {
      const message = 'The data lake is not enabled in this Jupyter server.';
      return new ApiError('missing', message, 'contact', status);
    }
    const message = `The Jupyter server answered with an error (${status}).`;
    return new ApiError('server', message, 'retry', status);
  }

  /** Whether a request found nobody: not refused by the server, which has sentences of its own. */
  export function unheard(error: unknown): boolean {
    const { code, status } = error as ApiError;
    return code === 'unreachable' || (code === 'server' && NOBODY.includes(status));
  }
}
