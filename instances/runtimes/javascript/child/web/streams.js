// Streams. Their machinery is web-streams-polyfill (see README.md of this folder).
// Names: ReadableStream ReadableStreamDefaultReader ReadableStreamBYOBReader ReadableStreamBYOBRequest
// Names: ReadableStreamDefaultController ReadableByteStreamController WritableStream
// Names: WritableStreamDefaultWriter WritableStreamDefaultController TransformStream
// Names: TransformStreamDefaultController ByteLengthQueuingStrategy CountQueuingStrategy TextEncoderStream
// Names: TextDecoderStream IdentityTransformStream FixedLengthStream
// Needs: encoding ponyfill

const {
  $Number, $TypeError, $Uint8Array, before, bytesOf, charCode, joined, lazy, the, then, utf8, viewTag, web, webClass,
} = core;

lazy(["ReadableStream", "ReadableStreamDefaultReader", "ReadableStreamBYOBReader", "ReadableStreamBYOBRequest",
  "ReadableStreamDefaultController", "ReadableByteStreamController", "WritableStream", "WritableStreamDefaultWriter",
  "WritableStreamDefaultController", "TransformStream", "TransformStreamDefaultController", "ByteLengthQueuingStrategy",
  "CountQueuingStrategy"], () => {
  const streams = {};
  core.streamsPonyfill(streams, {});
  core.StreamClass = streams.ReadableStream;
  return streams;
});

/** A stream of bytes out of `pull() -> Uint8Array, or undefined at the end`. */
function byteStream(pull, cancel) {
  return new web.ReadableStream({
    type: "bytes",
    async pull(controller) {
      const bytes = await pull();
      if (bytes === undefined) {
        controller.close();
        controller.byobRequest?.respond(0);
      } else {
        controller.enqueue(bytes);
      }
    },
    cancel,
  }, { highWaterMark: 0 });
}

core.storedStream = (pieces) => byteStream(pieces);

/** Everything a stream has to give, as bytes. */
async function drained(stream) {
  const reader = stream.getReader();
  const chunks = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return joined(chunks, size);
    const bytes = viewTag(value, []) === "Uint8Array" ? value : undefined;
    if (bytes === undefined) {
      const error = new $TypeError("a body must be a stream of Uint8Array chunks");
      then(reader.cancel(error), () => {}, () => {});
      throw error;
    }
    chunks[chunks.length] = bytes;
    size += bytes.length;
  }
}

lazy(["TextEncoderStream", "TextDecoderStream", "IdentityTransformStream", "FixedLengthStream"], () => {
  class TextEncoderStream {
    #stream;

    constructor() {
      let high = "";
      this.#stream = new web.TransformStream({
        transform(chunk, controller) {
          let text = high + `${chunk}`;
          high = "";
          const end = text.length ? charCode(text, text.length - 1) : 0;
          if (end >= 0xd800 && end < 0xdc00) {
            high = text[text.length - 1];
            text = text.slice(0, -1);
          }
          if (text !== "") controller.enqueue(utf8(text));
        },
        flush(controller) { if (high !== "") controller.enqueue(utf8(high)); },
      });
    }

    get encoding() { return "utf-8"; }
    get readable() { return this.#stream.readable; }
    get writable() { return this.#stream.writable; }
  }

  class TextDecoderStream {
    #stream; #decoder;

    constructor(label, options) {
      const decoder = this.#decoder = new web.TextDecoder(label, options);
      this.#stream = new web.TransformStream({
        transform(chunk, controller) {
          const text = decoder.decode(chunk, { stream: true });
          if (text !== "") controller.enqueue(text);
        },
        flush(controller) {
          const text = decoder.decode();
          if (text !== "") controller.enqueue(text);
        },
      });
    }

    get encoding() { return this.#decoder.encoding; }
    get fatal() { return this.#decoder.fatal; }
    get ignoreBOM() { return this.#decoder.ignoreBOM; }
    get readable() { return this.#stream.readable; }
    get writable() { return this.#stream.writable; }
  }

  class IdentityTransformStream extends web.TransformStream {
    constructor() {
      super({
        transform(chunk, controller) {
          const bytes = bytesOf(chunk);
          if (bytes === undefined) throw new $TypeError("only bytes can be written to this stream");
          controller.enqueue(new $Uint8Array(bytes));
        },
      });
    }
  }

  class FixedLengthStream extends web.TransformStream {
    constructor(length) {
      let left = $Number(length);
      if (!(left >= 0)) throw new $TypeError("the length must be a number of bytes");
      super({
        transform(chunk, controller) {
          const bytes = bytesOf(chunk);
          if (bytes === undefined) throw new $TypeError("only bytes can be written to this stream");
          left -= bytes.length;
          if (left < 0) throw new $TypeError("Attempt to write too many bytes through a FixedLengthStream.");
          controller.enqueue(new $Uint8Array(bytes));
        },
        flush() { if (left > 0) throw new $TypeError("FixedLengthStream did not see all expected bytes before close()."); },
      });
    }
  }
  return { TextEncoderStream: webClass(TextEncoderStream), TextDecoderStream: webClass(TextDecoderStream),
    IdentityTransformStream, FixedLengthStream };
});

core.assign(core, { byteStream, drained });
