/** What is sent of data that is published: bytes and text as they are, the rest as JSON. */
export const encode = (data: unknown): [body: BodyInit, type: string] =>
  typeof data === 'string'
    ? [data, 'text/plain; charset=utf-8']
    : data instanceof ArrayBuffer || ArrayBuffer.isView(data) || data instanceof Blob
      ? [data as BodyInit, 'application/octet-stream']
      : [JSON.stringify(data) ?? 'null', 'application/json'];
