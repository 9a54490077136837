package hpack_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"testing"

	"example.com/apns/internal/hpack"
)

// Some codes of RFC 7541 appendix B, of each length.
func TestHuffmanCodes(t *testing.T) {
	for symbol, want := range map[int]struct {
		code uint32
		bits uint
	}{
		'0': {0x0, 5}, 'a': {0x3, 5}, 't': {0x9, 5}, ' ': {0x14, 6}, ':': {0x5c, 7}, '&': {0xf8, 8},
		'!': {0x3f8, 10}, '+': {0x7fb, 11}, '#': {0xffa, 12}, 0: {0x1ff8, 13}, '~': {0x1ffd, 13}, '^': {0x3ffc, 14}, '<': {0x7ffc, 15},
		'\\': {0x7fff0, 19}, 128: {0xfffe6, 20}, 153: {0x1fffdc, 21}, 129: {0x3fffd2, 22}, 1: {0x7fffd8, 23},
		'\t': {0xffffea, 24}, 199: {0x1ffffec, 25}, 255: {0x3ffffee, 26}, 254: {0x7fffff0, 27},
		2: {0xfffffe2, 28}, 31: {0xffffffb, 28}, 127: {0xffffffc, 28},
		'\n': {0x3ffffffc, 30}, '\r': {0x3ffffffd, 30}, 22: {0x3ffffffe, 30}, 256: {0x3fffffff, 30},
	} {
		if code, bits := hpack.HuffmanCode(symbol); code != want.code || bits != want.bits {
			t.Errorf("symbol %d: got code %#x of %d bits, want %#x of %d", symbol, code, bits, want.code, want.bits)
		}
	}
	// No code begins with another, and there is none to spare.
	sum := 0
	for symbol := range 257 {
		code, bits := hpack.HuffmanCode(symbol)
		sum += 1 << (30 - bits)
		for other := range symbol {
			if c, b := hpack.HuffmanCode(other); c<<(30-b)>>(30-min(b, bits)) == code<<(30-bits)>>(30-min(b, bits)) {
				t.Errorf("the codes of %d and %d begin alike", symbol, other)
			}
		}
	}
	if sum != 1<<30 {
		t.Errorf("the codes take %#x of the strings of 30 bits, want %#x", sum, 1<<30)
	}
}

type huffmanKey struct {
	code uint32
	bits uint
}

var huffmanSymbols = sync.OnceValue(func() map[huffmanKey]int {
	symbols := make(map[huffmanKey]int)
	for symbol := range 257 {
		code, bits := hpack.HuffmanCode(symbol)
		symbols[huffmanKey{code, bits}] = symbol
	}
	return symbols
})

// slowDecode decodes bit by bit, from the codes alone.
func slowDecode(b []byte) (string, bool) {
	symbols := huffmanSymbols()
	var s []byte
	var k huffmanKey
	for _, c := range b {
		for i := 7; i >= 0; i-- {
			k.code, k.bits = k.code<<1|uint32(c>>i&1), k.bits+1
			symbol, ok := symbols[k]
			if !ok {
				continue
			}
			if symbol == 256 {
				return "", false
			}
			s = append(s, byte(symbol))
			k = huffmanKey{}
		}
	}
	return string(s), k.bits < 8 && k.code == 1<<k.bits-1
}

// checkHuffman compares the decoder with slowDecode, and what it accepts with what
// encodes to it.
func checkHuffman(t *testing.T, b []byte) {
	t.Helper()
	want, ok := slowDecode(b)
	got, err := hpack.AppendDecodedHuffman(nil, b)
	if (err == nil) != ok || ok && string(got) != want {
		t.Fatalf("%x: got %q, %v, want %q, %t", b, got, err, want, ok)
	}
	if again := hpack.AppendHuffman(nil, want); ok && !bytes.Equal(again, b) {
		t.Fatalf("%x: got %q, which encodes to %x", b, got, again)
	}
}

// All strings of 2 bytes, after others of each length modulo what is read at once.
func TestHuffmanDecode(t *testing.T) {
	for i := range 1 << 16 {
		b := binary.BigEndian.AppendUint16(nil, uint16(i))
		checkHuffman(t, b)
		if i%257 == 0 || i > 0xff00 {
			for n := range 20 {
				checkHuffman(t, append(bytes.Repeat([]byte{0x18}, n), b...)) // a, then 3 zeros, ...
				checkHuffman(t, append(bytes.Repeat([]byte{0xff, 0xff, 0xea}, n), b...))
			}
		}
	}
	// Ones run through codes of 30 bits up to the end of a string.
	for n := range 12 {
		for last := range 256 {
			checkHuffman(t, append(bytes.Repeat([]byte{0xff}, n), byte(last)))
			checkHuffman(t, append(append([]byte{0x1f}, bytes.Repeat([]byte{0xff}, n)...), byte(last)))
		}
	}
}

// The decoder writes two bytes at once, and only where there is room.
func TestHuffmanRoom(t *testing.T) {
	const s = "00000000&" // 8 codes of 5 bits and one of 8: no 6 bytes decode to more
	b := hpack.AppendHuffman(nil, s)
	for room := range 20 {
		dst := append(make([]byte, 0, 1+room), 'x')
		if got, err := hpack.AppendDecodedHuffman(dst, b); err != nil || string(got) != "x"+s {
			t.Errorf("room for %d bytes: got %q, %v, want %q", room, got, err, "x"+s)
		}
	}
}

// Each symbol before and after each other one, and long strings of it.
func TestHuffmanRoundTrip(t *testing.T) {
	check := func(s string) {
		t.Helper()
		b := hpack.AppendHuffman([]byte("x"), s)
		if n := hpack.HuffmanLen(s); b[0] != 'x' || len(b) != 1+n {
			t.Fatalf("%q: got %x, want x and %d bytes", s, b, n)
		}
		if got, err := hpack.AppendDecodedHuffman(nil, b[1:]); err != nil || string(got) != s {
			t.Fatalf("%q: got %q, %v", s, got, err)
		}
	}
	check("")
	for i := range 256 {
		for j := range 256 {
			check(string([]byte{byte(i), byte(j)}))
			check(string([]byte{'a', byte(i), byte(j), 'a', byte(i)}))
		}
		for n := range 40 {
			check(strings.Repeat(string([]byte{byte(i)}), n))
		}
	}
}
