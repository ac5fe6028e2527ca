import assert from 'node:assert/strict';
import test from 'node:test';
import { isAfter } from '../src/cursor.ts';
import { isName, lines, matches, toMessage } from '../src/parse.ts';

test('lines, in pieces of every size', () => {
  const text = '\n{"a":1}\n\n{"b":"\\n"}\nunfinished';
  for (let size = 1; size <= text.length; size++) {
    const got: unknown[] = [];
    const feed = lines((value) => got.push(value));
    for (let at = 0; at < text.length; at += size) feed(text.slice(at, at + size));
    assert.deepEqual(got, [{ a: 1 }, { b: '\n' }]);
  }
});

test('names and patterns (protocol, section 2)', () => {
  for (const name of ['a', 'a/b', 'a/*', 'a/**', '*', '**', 'x.y/-_.~!$()@:+,=%', '...', 'a/...', 'meta', 'service', 'metal/a', 'a/meta/b', 'a'.repeat(255)]) {
    assert(isName(name), name);
  }
  for (const name of ['', '/', 'a/', '/a', 'a//b', '.', '..', 'a/.', 'a/../b', './a', 'meta/x', 'service/y', 'meta/**', 'a*', '*/b', 'a/*/b', 'a/***', 'ä', 'a b', 'a/*/', 'a\n', 'a'.repeat(256)]) {
    assert(!isName(name), name);
  }
});

test('what a pattern matches (protocol 2.5)', () => {
  const table: [string, string, boolean][] = [
    ['a', 'a', true],
    ['a', 'a/b', false],
    ['a/*', 'a/b', true],
    ['a/*', 'a', false],
    ['a/*', 'a/b/c', false],
    ['a/**', 'a/b', true],
    ['a/**', 'a/b/c', true],
    ['a/**', 'a', false],
    ['a/**', 'ab/c', false],
    ['*', 'a', true],
    ['*', 'a/b', false],
    ['**', 'a/b', true],
  ];
  for (const [name, channel, want] of table) assert.equal(matches(name, channel), want, `${name} ${channel}`);
});

test('the order of cursors (protocol, section 3)', () => {
  const table: [string, string, boolean][] = [
    ['e-2', 'e-1', true],
    ['e-1', 'e-1', false],
    ['e-1', 'e-2', false],
    ['e-10', 'e-9', true],
    ['e-9', 'e-10', false],
    ['e-9223372036854775807', 'e-9223372036854775806', true],
    ['f-1', 'e-2', true],
    ['e-1', 'earliest', true],
  ];
  for (const [a, b, want] of table) assert.equal(isAfter(a, b), want, `${a} ${b}`);
});

test('messages', () => {
  const envelope = { id: 'e-1', channel: 'a', time: 1 };
  assert.deepEqual(toMessage({ ...envelope, data: null }), { ...envelope, data: null });
  assert.deepEqual(toMessage({ ...envelope, data64: 'AQL/', contentType: 'image/png' }), {
    ...envelope,
    data: new Uint8Array([1, 2, 255]),
    contentType: 'image/png',
  });
});
