// crypto.DigestStream, of Cloudflare: a stream that makes a digest of what is written to it.
// Names: DigestStream
// Needs: crypto streams

const {
  $TypeError, bytesOf, defineProperty, settled, then, utf8, web,
} = core;

function makeDigestStream() {
  return class DigestStream extends web.WritableStream {
    #digest;

    constructor(algorithm) {
      const hasher = web.hasherOf(algorithm);
      let done, failed;
      const result = settled((resolve, reject) => { done = resolve; failed = reject; });
      then(result, () => {}, () => {});
      super({
        write(chunk) {
          const bytes = typeof chunk === "string" ? utf8(chunk) : bytesOf(chunk);
          if (bytes === undefined) throw new $TypeError("only bytes can be written to a DigestStream");
          hasher.update(bytes);
        },
        close() { done(hasher.digest().buffer); },
        abort(reason) { failed(reason); },
      });
      this.#digest = result;
    }

    get digest() { return this.#digest; }
  };
}
let DigestStream;
defineProperty(web.crypto, "DigestStream", { get: () => (DigestStream ??= makeDigestStream()), configurable: true });
