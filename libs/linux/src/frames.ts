/** Frames between agent and shim: `[type, 0, 0, 0, length big-endian] payload`. Types 0–2 are Docker's multiplexed streams. */
export const FrameType = {
  stdin: 0x00,
  stdout: 0x01,
  stderr: 0x02,
  started: 0x10,
  failed: 0x11,
  warning: 0x12,
  state: 0x20,
  signal: 0x21,
  resize: 0x22,
  attach: 0x23,
  wait: 0x24,
  exec: 0x25,
  release: 0x26,
  ok: 0x31,
  refused: 0x32,
  exit: 0x40,
} as const;

export const FRAME_HEADER_BYTES = 8;

export interface Frame {
  readonly type: number;
  readonly payload: Buffer;
}

export function encodeFrame(type: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.byteLength);
  frame.writeUInt32LE(type, 0);
  frame.writeUInt32BE(payload.byteLength, 4);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/** Cuts a byte stream into frames. A chunk that holds whole frames is not copied. */
export class FrameDecoder {
  #rest: Buffer = Buffer.alloc(0);

  /** Whole frames that end in this chunk. */
  *push(chunk: Buffer): Generator<Frame> {
    let buffer = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (buffer.length >= FRAME_HEADER_BYTES) {
      const end = FRAME_HEADER_BYTES + buffer.readUInt32BE(4);
      if (buffer.length < end) break;
      const frame = { type: buffer[0] ?? 0, payload: buffer.subarray(FRAME_HEADER_BYTES, end) };
      buffer = buffer.subarray(end);
      this.#rest = buffer;
      yield frame;
    }
    this.#rest = buffer;
  }
}
