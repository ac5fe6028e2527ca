/**
 * What is sent of data that is published: text and bytes as they are, whose
 * types are told by `fetch` and the server, and the rest as JSON.
 */
export const encode = (data: unknown): [body: BodyInit, type?: string] =>
  typeof data === 'string' || data instanceof ArrayBuffer || ArrayBuffer.isView(data) || data instanceof Blob
    ? [data as BodyInit]
    : [JSON.stringify(data) ?? 'null', 'application/json'];
