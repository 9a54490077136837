package hpack_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/hpack"
)

// split returns the blocks of a fuzzer's input. Each is preceded by its length in
// one byte; after 255 comes all the rest.
func split(b []byte) (blocks [][]byte) {
	for len(b) > 0 {
		n := int(b[0])
		b = b[1:]
		if n == 255 || n > len(b) {
			n = len(b)
		}
		blocks = append(blocks, b[:n])
		b = b[n:]
	}
	return blocks
}

// join is the reverse of split.
func join(blocks ...[]byte) (b []byte) {
	for _, block := range blocks {
		b = append(append(b, byte(min(len(block), 255))), block...)
	}
	return b
}

// checkTable checks a dynamic table's account of itself.
func checkTable(t *testing.T, fields []field, size, limit, maxLimit int) {
	t.Helper()
	sum := 0
	for _, f := range fields {
		sum += len(f.Name) + len(f.Value) + 32
	}
	if size != sum || size > limit || limit > maxLimit {
		t.Fatalf("got a table of %d bytes, size %d, limit %d of %d", sum, size, limit, maxLimit)
	}
}

// Any blocks are decoded to an error or to fields that are no larger than the
// limit. The same fields encode to blocks that decode to them.
func FuzzDecode(f *testing.F) {
	for _, e := range examples(f) {
		var blocks [][]byte
		for _, b := range e.blocks {
			blocks = append(blocks, b.block)
		}
		f.Add(join(blocks...), uint16(e.max), uint16(1<<14))
	}
	f.Add(join(unhex(f, "20 3f45 40016101 62"), unhex(f, "be 7e 0163"), unhex(f, "3f09 be")), uint16(100), uint16(100))
	f.Add(join(unhex(f, "000161 85 1fffffffff")), uint16(4096), uint16(100))
	f.Add(join(unhex(f, "0f80808080808080808002")), uint16(4096), uint16(100))
	f.Fuzz(func(t *testing.T, b []byte, maxTableSize, maxListSize uint16) {
		d := hpack.NewDecoder(int(maxTableSize), int(maxListSize))
		encoders := make([]hpack.Encoder, 3) // one for each Indexing
		decoders := make([]*hpack.Decoder, len(encoders))
		for i := range encoders {
			encoders[i].SetMaxTableSize(uint32(maxTableSize))
			decoders[i] = hpack.NewDecoder(int(maxTableSize), int(maxListSize))
		}
		for _, block := range split(b) {
			fields, err := decode(d, block)
			size := 0
			for _, f := range fields {
				size += len(f.Name) + len(f.Value) + 32
			}
			if size > int(maxListSize) {
				t.Fatalf("got fields of %d bytes, want at most %d", size, maxListSize)
			}
			table, size, limit := d.Table()
			checkTable(t, table, size, limit, max(int(maxTableSize), 4096))
			if err != nil && !errors.Is(err, hpack.ErrListSize) {
				if !strings.HasPrefix(err.Error(), "header block: ") {
					t.Fatalf("got error %q", err)
				}
				return
			}

			var literals []byte
			for _, f := range fields {
				literals = hpack.AppendLiteral(literals, f.Name, f.Value)
			}
			if got, err := decode(hpack.NewDecoder(0, int(maxListSize)), literals); err != nil || !slices.Equal(got, fields) {
				t.Fatalf("got %q, %v, want %q", got, err, fields)
			}
			for i := range encoders {
				block := encode(&encoders[i], hpack.Indexing(i), fields...)
				if got, err := decode(decoders[i], block); err != nil || !slices.Equal(got, fields) {
					t.Fatalf("%d: got %q, %v, want %q", i, got, err, fields)
				}
				checkEnds(t, &encoders[i], decoders[i])
			}
		}
	})
}

// checkEnds checks that both ends have the same table.
func checkEnds(t *testing.T, e *hpack.Encoder, d *hpack.Decoder) {
	t.Helper()
	encoded, size, limit := e.Table()
	checkTable(t, encoded, size, limit, 4096)
	decoded, dsize, dlimit := d.Table()
	if !slices.Equal(encoded, decoded) || size != dsize || limit != dlimit {
		t.Fatalf("the encoder has table %q of %d bytes, limit %d\nthe decoder has table %q of %d bytes, limit %d", encoded, size, limit, decoded, dsize, dlimit)
	}
}

// Any fields, encoded in any ways, decode to themselves while the table's size
// changes.
//
// Each byte of script does one thing. The lowest two bits say what: append a field
// with that Indexing or, with 3, begin a block, perhaps after a change of the table's
// size. The other bits say which field or size.
func FuzzEncode(f *testing.F) {
	const script = "\x00\x01\x02\x12\x01\x12\x02\x03\x06\x46\x86\xc6\x4a\x4a\x8e\x13\x06\x06\x0b\x02\x1b\x02\x53\x02\x02\xf6\xf6"
	f.Add("apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b", "apns-topic", "com.example.app", []byte(script))
	f.Add(strings.Repeat("n", 127), strings.Repeat("v", 2000), "\x00", "\xff", []byte(script))
	f.Add("", "", ":method", "POST", []byte(script))
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string, script []byte) {
		var e hpack.Encoder
		d := hpack.NewDecoder(65535, 1<<30)
		var fields []field
		limit := 4096 // that the peer allows
		block := e.AppendBegin(nil)
		end := func() {
			if got, err := decode(d, block); err != nil || !slices.Equal(got, fields) {
				t.Fatalf("block %x\ngot  %q, %v\nwant %q", block, got, err, fields)
			}
			checkEnds(t, &e, d)
			if _, _, l := d.Table(); l > limit {
				t.Fatalf("got limit %d, want at most %d", l, limit)
			}
		}
		for _, c := range script {
			if c&3 != 3 {
				name, value := name1, value1
				if c&4 != 0 {
					name = name2
				}
				if c&8 != 0 {
					value = value2
				}
				if c&0xc0 == 0xc0 {
					sf := hpack.StaticField(int(c)>>2%hpack.StaticFields + 1)
					name = sf.Name
					if c&0x20 != 0 {
						value = sf.Value
					}
				} else if c&0x30 != 0 {
					value += fmt.Sprint(c >> 4)
				}
				block = e.AppendField(block, name, value, hpack.Indexing(c&3))
				fields = append(fields, field{name, value})
				continue
			}
			end()
			switch {
			case c&4 != 0: // small, and perhaps raised again
				limit = int(c>>3) * 8
				e.SetMaxTableSize(uint32(limit))
				if c&0x40 != 0 {
					limit = 4096
					e.SetMaxTableSize(uint32(limit))
				}
			case c&8 != 0: // large
				limit = int(c>>4) * 5000
				e.SetMaxTableSize(uint32(limit))
			}
			block, fields = e.AppendBegin(block[:0]), nil
		}
		end()
	})
}

// A string that decodes is the only Huffman code of what it decodes to, and any
// string decodes from its code.
func FuzzHuffman(f *testing.F) {
	f.Add([]byte("www.example.com"))
	f.Add(unhex(f, "f1e3c2e5f23a6ba0ab90f4ff"))
	f.Add(unhex(f, "ffffffff"))
	f.Add(unhex(f, "1fff"))
	f.Add(unhex(f, "fffffff3"))
	f.Add(unhex(f, "18c6318c63"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkHuffman(t, b)

		code := hpack.AppendHuffman(nil, string(b))
		if got, err := hpack.AppendDecodedHuffman(nil, code); err != nil || !bytes.Equal(got, b) || len(code) != hpack.HuffmanLen(string(b)) {
			t.Fatalf("%q: got %q, %v from code %x, want a code of %d bytes", b, got, err, code, hpack.HuffmanLen(string(b)))
		}
		// Any other padding, or one byte more, is not a code.
		if len(code) > 0 {
			code[len(code)-1] ^= 1
			checkHuffman(t, code)
			code[len(code)-1] ^= 1
		}
		checkHuffman(t, append(code, 0xff))
	})
}
