// bfloat16: the upper half of a float32. Half the bytes, 8 bits of precision, the range of float32.

/**
 * Rounds to the nearest bfloat16, ties to the even one.
 *
 * @throws RangeError if a value is not finite, or so near to the end of float32's range that it rounds to infinity
 */
export function toBfloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const rounded = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i += 1) {
    const word = bits[i]!;
    // Adding just under half of what is cut off carries into the upper half where it should, also the exponent's.
    const half = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
    if ((half & 0x7f80) === 0x7f80) {
      throw new RangeError(`Value ${i} has no finite bfloat16: ${values[i]}. The largest is about 3.39e38.`);
    }
    rounded[i] = half;
  }
  return rounded;
}

/** The float32 values that bfloat16 values stand for; exact. */
export function fromBfloat16(values: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i += 1) bits[i] = values[i]! << 16;
  return new Float32Array(bits.buffer);
}
