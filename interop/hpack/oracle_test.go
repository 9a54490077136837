// Package hpack_test compares internal/hpack with golang.org/x/net/http2/hpack, which is by
// other authors. It is a module of its own, so that example.com/apns depends only on the
// standard library.
package hpack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/hpack"
	xhpack "golang.org/x/net/http2/hpack"
)

type field struct{ name, value string }

// An ourDecoder is a Decoder of internal/hpack.
type ourDecoder struct{ d *hpack.Decoder }

func newOurs(maxTableSize int) ourDecoder {
	return ourDecoder{hpack.NewDecoder(maxTableSize, 1<<30)}
}

func (o ourDecoder) decode(block []byte) (fields []field, err error) {
	err = o.d.Decode(block, func(name, value []byte) {
		fields = append(fields, field{string(name), string(value)})
	})
	return fields, err
}

// A theirDecoder is a Decoder of x/net.
type theirDecoder struct {
	d      *xhpack.Decoder
	fields *[]field
}

func newTheirs(maxTableSize int) theirDecoder {
	fields := new([]field)
	d := xhpack.NewDecoder(4096, func(f xhpack.HeaderField) {
		*fields = append(*fields, field{f.Name, f.Value})
	})
	d.SetAllowedMaxDynamicTableSize(uint32(maxTableSize))
	return theirDecoder{d, fields}
}

// decode decodes a block. It passes each size update at the start as a block of its
// own: x/net accepts a second one only while its table is empty, although RFC 7541
// section 4.2 allows an encoder to send two.
func (x theirDecoder) decode(block []byte) ([]field, error) {
	*x.fields = nil
	for {
		n := sizeUpdate(block)
		if n == 0 {
			break
		}
		if err := x.write(block[:n]); err != nil {
			return nil, err
		}
		block = block[n:]
	}
	err := x.write(block)
	return *x.fields, err
}

func (x theirDecoder) write(block []byte) error {
	_, err := x.d.Write(block)
	return errors.Join(err, x.d.Close())
}

// sizeUpdate returns the length of the size update that begins a block, or 0.
func sizeUpdate(block []byte) int {
	switch {
	case len(block) == 0 || block[0]&0xe0 != 0x20:
		return 0
	case block[0] != 0x3f:
		return 1
	}
	// The last byte of a number is below 0x80.
	return 2 + slices.IndexFunc(block[1:], func(c byte) bool { return c < 0x80 })
}

// table returns the fields of a decoder's dynamic table, newest first. The decoder cannot be
// used after that.
func table(decode func([]byte) ([]field, error)) (all []field) {
	for i := 62; ; i++ {
		block := []byte{0x80 | byte(i)}
		if i >= 127 {
			block = binary.AppendUvarint([]byte{0xff}, uint64(i-127))
		}
		fields, err := decode(block)
		if err != nil {
			return all
		}
		all = append(all, fields...)
	}
}

// split returns the blocks in a fuzzer's input. Each block follows its length in one byte.
// After a length of 255 the block is all that remains.
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

// Both decoders find the same fields in any blocks, or an error after the same fields. In the
// end they have the same table. Ours is stricter in two ways:
//
//   - A number may have 4 bytes after its prefix; x/net takes 9. RFC 7541 section
//     5.1 demands that there is a limit.
//   - A size update after a field is an error (RFC 7541 section 4.2); x/net accepts
//     it while its table is empty.
//
// In these cases x/net may find more fields, after those that ours found. x/net is stricter
// only in the case that theirDecoder.decode works around. The limit of the field list does
// not matter here: x/net leaves it to its caller.
func FuzzDecodeOracle(f *testing.F) {
	for _, b := range []string{
		// RFC 7541 appendix C.4 and C.6.
		"\x11\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff\x0c\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
		"\x09\x3f\xe1\x01\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b",
		"\x06\x20\x3f\x45\x40\x01a\x01b\x05\xbe\x7e\x01cd",
		"\x03\x82\x20\x82", // late size update
		"\x06\xff\x80\x80\x80\x80\x00",
		"\x07\x40\x01a\x84\xff\xff\xff\xff",
	} {
		f.Add([]byte(b), uint16(4096))
		f.Add([]byte(b), uint16(100))
	}
	f.Fuzz(func(t *testing.T, b []byte, maxTableSize uint16) {
		ours, theirs := newOurs(int(maxTableSize)), newTheirs(int(maxTableSize))
		for _, block := range split(b) {
			got, err := ours.decode(block)
			want, xerr := theirs.decode(block)
			if err != nil && (strings.Contains(err.Error(), "more than 4 bytes") || strings.Contains(err.Error(), "size update after a field")) {
				if len(want) < len(got) || !slices.Equal(got, want[:len(got)]) {
					t.Fatalf("block %x\nours   %q, %v\ntheirs %q, %v", block, got, err, want, xerr)
				}
				return
			}
			if (err == nil) != (xerr == nil) || !slices.Equal(got, want) {
				t.Fatalf("block %x\nours   %q, %v\ntheirs %q, %v", block, got, err, want, xerr)
			}
			if err != nil {
				return
			}
		}
		if got, want := table(ours.decode), table(theirs.decode); !slices.Equal(got, want) {
			t.Fatalf("tables\nours   %q\ntheirs %q", got, want)
		}
	})
}

// The differences for which the fuzz targets make an exception exist.
func TestDifferences(t *testing.T) {
	for _, tt := range []struct {
		name         string
		block        string
		ours, theirs bool // accept it
	}{
		{"a length of 4 bytes", "\x01\x7f\x80\x80\x80\x00" + strings.Repeat("a", 127), true, true},
		{"a length of 5 bytes", "\x01\x7f\x80\x80\x80\x80\x00" + strings.Repeat("a", 127), false, true},
		{"a late size update, the table empty", "\x82\x20", false, true},
		{"a late size update, the table not empty", "\x40\x01a\x01b\x20", false, false},
		{"two size updates, the table empty", "\x20\x3f\x45\x82", true, true},
	} {
		_, err := newOurs(4096).decode([]byte(tt.block))
		theirs := newTheirs(4096)
		xerr := theirs.write([]byte(tt.block))
		if (err == nil) != tt.ours || (xerr == nil) != tt.theirs {
			t.Errorf("%s: got %v from ours, %v from theirs, want %t, %t", tt.name, err, xerr, tt.ours, tt.theirs)
		}
	}

	// Two size updates in a block, while the table is not empty.
	const insert, updates = "\x40\x01a\x01b", "\x3f\x45\x3f\xe1\x1f\xbe"
	ours, theirs := newOurs(4096), newTheirs(4096)
	_, err := ours.decode([]byte(insert))
	xerr := theirs.write([]byte(insert))
	if err != nil || xerr != nil {
		t.Fatalf("got %v, %v", err, xerr)
	}
	if fields, err := ours.decode([]byte(updates)); err != nil || !slices.Equal(fields, []field{{"a", "b"}}) {
		t.Errorf("got %q, %v, want a: b", fields, err)
	}
	if err := theirs.write([]byte(updates)); err == nil {
		t.Error("x/net accepts two size updates now: theirDecoder.decode need not split the block")
	}
}

// Each decoder reads the blocks of the other author's encoder, while the size of the table
// changes.
//
// Each byte of script is one operation. If its lowest two bits are 0, 1 or 2, it appends a
// field with that Indexing. If they are 3, it begins a block, and may change the size of the
// table. The other bits select the field or size.
func FuzzEncodeOracle(f *testing.F) {
	const script = "\x00\x01\x02\x12\x01\x12\x02\x03\x06\x46\x86\xc6\x4a\x4a\x8e\x13\x06\x06\x0b\x02\x1b\x02\x53\x02\x02\xf6\xf6\x57\x06\x03\x06"
	f.Add("apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b", "apns-topic", "com.example.app", []byte(script))
	f.Add(strings.Repeat("n", 127), strings.Repeat("v", 2000), "\x00", "\xff", []byte(script))
	f.Add("", "", ":method", "POST", []byte(script))
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string, script []byte) {
		var ourBlock []byte
		var ourEncoder hpack.Encoder
		var theirBlock bytes.Buffer
		theirEncoder := xhpack.NewEncoder(&theirBlock)

		ours, theirs := newOurs(4096), newTheirs(4096)
		var fields []field
		end := func() {
			if got, err := theirs.decode(ourBlock); err != nil || !slices.Equal(got, fields) {
				t.Fatalf("our block %x\ngot  %q, %v\nwant %q", ourBlock, got, err, fields)
			}
			if got, err := ours.decode(theirBlock.Bytes()); err != nil || !slices.Equal(got, fields) {
				t.Fatalf("their block %x\ngot  %q, %v\nwant %q", theirBlock.Bytes(), got, err, fields)
			}
		}
		ourBlock = ourEncoder.AppendBegin(nil)
		for _, c := range script {
			if c&3 != 3 {
				name, value := name1, value1
				if c&4 != 0 {
					name = name2
				}
				if c&8 != 0 {
					value = value2
				}
				if c>>4 != 0 {
					value += fmt.Sprint(c >> 4)
				}
				ourBlock = ourEncoder.AppendField(ourBlock, name, value, hpack.Indexing(c&3))
				theirEncoder.WriteField(xhpack.HeaderField{Name: name, Value: value, Sensitive: c&3 == 0})
				fields = append(fields, field{name, value})
				checkLiteral(t, name, value)
				continue
			}
			end()
			setSize := func(n uint32) {
				ourEncoder.SetMaxTableSize(n)
				theirEncoder.SetMaxDynamicTableSize(n)
			}
			switch {
			case c&4 != 0: // small, and perhaps raised again
				setSize(uint32(c>>3) * 8)
				if c&0x40 != 0 {
					setSize(4096)
				}
			case c&8 != 0: // large
				setSize(uint32(c>>4) * 5000)
			}
			ourBlock = ourEncoder.AppendBegin(ourBlock[:0])
			theirBlock.Reset()
			fields = nil
		}
		end()
	})
}

// checkLiteral compares AppendLiteral with x/net's encoding of the field. For x/net the field
// is never indexed, unless ours is an index. The first byte of a literal may differ: in the
// representation, and in the static field that is used for the name.
func checkLiteral(t *testing.T, name, value string) {
	t.Helper()
	ours := hpack.AppendLiteral(nil, name, value)
	isIndex := ours[0] >= 0x80
	var theirs bytes.Buffer
	xhpack.NewEncoder(&theirs).WriteField(xhpack.HeaderField{Name: name, Value: value, Sensitive: !isIndex})
	differ := ours[0] ^ theirs.Bytes()[0]
	if !bytes.Equal(ours[1:], theirs.Bytes()[1:]) || differ&0xe0 != 0 || isIndex && differ != 0 {
		t.Fatalf("%q: %q\nours   %x\ntheirs %x", name, value, ours, theirs.Bytes())
	}
}

// Each pair of bytes has the same Huffman code in both packages, in names and in values.
func TestHuffmanOracle(t *testing.T) {
	for i := range 256 {
		for j := range 256 {
			s := strings.Repeat("0", 40) + string([]byte{byte(i), byte(j)})
			checkLiteral(t, "x", s)
			checkLiteral(t, s, "x")
		}
	}
}

// The static tables have the same fields.
func TestStaticOracle(t *testing.T) {
	for i := 1; i <= 62; i++ {
		block := []byte{0x80 | byte(i)}
		got, err := newOurs(4096).decode(block)
		want, xerr := newTheirs(4096).decode(block)
		if !slices.Equal(got, want) || (err == nil) != (xerr == nil) || (err == nil) != (i <= 61) {
			t.Errorf("index %d\nours   %q, %v\ntheirs %q, %v", i, got, err, want, xerr)
		}
		for _, f := range want {
			checkLiteral(t, f.name, f.value)
			checkLiteral(t, f.name, f.value+"x")
		}
	}
}
