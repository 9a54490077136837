package hpack_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/hpack"
)

func TestDecodeErrors(t *testing.T) {
	const (
		padding = "the padding of a Huffman string is not up to 7 bits of ones"
		eos     = "a Huffman string has the end-of-string code in it"
		late    = "a table size update after a field, expected only at the start"
		long    = "a number has more than 4 bytes after its prefix"
		early   = "ends in the middle of a field"
		cut     = "ends in the middle of a number"
	)
	for _, tt := range []struct{ section, name, hex, err string }{
		{"2.3.3", "index past the static table", "be", "the index is 62, expected 1 to 61"},
		{"2.3.3", "index past the dynamic table", "40016101 62 be bf", "the index is 63, expected 1 to 62"},
		{"2.3.3", "index of an evicted field", "3f02 40016100 40016200 bf", "the index is 63, expected 1 to 62"},
		{"2.3.3", "index of a name that is inserted", "7e 0161", "the index is 62, expected 1 to 61"},
		{"2.3.3", "index of a name, not inserted", "0f2f 0161", "the index is 62, expected 1 to 61"},
		{"2.3.3", "index of a name, never inserted", "1f2f 0161", "the index is 62, expected 1 to 61"},
		{"2.3.3", "the largest index", "ff ffffff7f", "the index is 268435582, expected 1 to 61"},
		{"6.1", "index 0", "80", "the index is 0, expected 1 to 61"},

		{"5.1", "number of 5 bytes", "ff 8080808000", long},
		{"5.1", "number of 5 bytes, value 0 to come", "7f 8080808000", long},
		{"5.1", "number above 1<<28", "0f ffffffff7f", long},
		{"5.1", "number of 1<<64", "0f 80808080808080808002", long},
		{"5.1", "number without end", "0f" + strings.Repeat("ff", 99), long},
		{"5.1", "length of 5 bytes", "00 7f ffffffffff7f", long},
		{"5.1", "size update of 5 bytes", "3f 8080808000", long},
		{"5.1", "number cut off", "ff", cut},
		{"5.1", "number cut off after 3 bytes", "ff 808080", cut},
		{"5.1", "size update cut off", "3fe1", cut},

		{"5.2", "name beyond the block", "00 0261", "a string has 2 bytes, expected at most 1, the rest of the block"},
		{"5.2", "value beyond the block", "01 0261", "a string has 2 bytes, expected at most 1, the rest of the block"},
		{"5.2", "Huffman value beyond the block", "01 821f", "a string has 2 bytes, expected at most 1, the rest of the block"},
		{"5.2", "very long name", "00 7fffffff7f 61", "a string has 268435582 bytes, expected at most 1, the rest of the block"},
		{"5.2", "no name", "00", early},
		{"5.2", "no value", "00 0161", early},
		{"5.2", "no value after an index", "44", early},

		// As a value of :authority: 'a' is 00011, and then comes:
		{"5.2", "padding of zeros", "01 81 18", padding},
		{"5.2", "padding not all ones", "01 81 1e", padding},
		{"5.2", "padding of 8 bits", "01 81 ff", padding},
		{"5.2", "padding of 11 bits", "01 82 1fff", padding},
		{"5.2", "padding of 27 bits", "01 84 1fffffff", padding},
		{"5.2", "incomplete code", "01 82 1ffe", padding},
		{"5.2", "incomplete code of 29 bits", "01 84 1ffffff8", padding},
		{"5.2", "end of string", "01 84 ffffffff", eos},
		{"5.2", "end of string after a code", "01 85 1fffffffff", eos},
		{"5.2", "end of string and more", "01 86 fffffffc1818", eos},
		{"5.2", "padding of zeros in a name", "40 81 18 0161", padding},
		{"5.2", "end of string in an inserted field", "41 84 ffffffff", eos},

		{"6.3", "size update above the setting", "3fe21f", "the table size update is 4097, expected at most 4096"},
		{"6.3", "the largest size update", "3f ffffff7f", "the table size update is 268435486, expected at most 4096"},
		{"4.2", "size update after a field", "82 20", late},
		{"4.2", "size update after an inserted field", "40016101 62 20", late},
		{"4.2", "size update between fields", "20 82 3e 82", late},
	} {
		_, err := decode(hpack.NewDecoder(4096, 16<<10), unhex(t, tt.hex))
		if want := "header block: " + tt.err; err == nil || err.Error() != want {
			t.Errorf("%s %s: got %v, want error %q", tt.section, tt.name, err, want)
		}
		if errors.Is(err, hpack.ErrListSize) {
			t.Errorf("%s %s: got ErrListSize", tt.section, tt.name)
		}
	}
}

// What is legal and looks wrong.
func TestDecodeLegal(t *testing.T) {
	for _, tt := range []struct {
		section, name, hex string
		fields             []field
	}{
		{"2.3.2", "the same entry twice", "40016101 62 40016101 62 be bf", []field{{"a", "b"}, {"a", "b"}, {"a", "b"}, {"a", "b"}}},
		{"2.3.2", "an entry of the static table", "42 03474554 be", []field{{":method", "GET"}, {":method", "GET"}}},
		{"4.2", "many size updates", "20 3f45 20 3fe11f 21 82", []field{{":method", "GET"}}},
		{"4.2", "a size update alone", "20", nil},
		{"4.4", "an entry larger than the table", "22 40016101 62", []field{{"a", "b"}}},
		{"5.1", "a number longer than it need be", "0f 8180 8000 0161", []field{{"accept-encoding", "a"}}},
		{"5.2", "an empty name and value", "00 00 00", []field{{"", ""}}},
		{"5.2", "an empty Huffman string", "01 80", []field{{":authority", ""}}},
		{"5.2", "Huffman code longer than the string", "01 84 fffffff3", []field{{":authority", "\n"}}}, // of 30 bits
		{"5.2", "no padding", "01 85 18c6318c63", []field{{":authority", "aaaaaaaa"}}},
		{"6.2.3", "never indexed, by name", "11 0161", []field{{":authority", "a"}}},
		{"", "an empty block", "", nil},
	} {
		fields, err := decode(hpack.NewDecoder(4096, 16<<10), unhex(t, tt.hex))
		if err != nil || !slices.Equal(fields, tt.fields) {
			t.Errorf("%s %s: got %q, %v, want %q", tt.section, tt.name, fields, err, tt.fields)
		}
	}
}

// RFC 7541 sections 4.2 to 4.4.
func TestDecodeTable(t *testing.T) {
	d := hpack.NewDecoder(100, 16<<10)
	if _, _, limit := d.Table(); limit != 4096 {
		t.Errorf("got limit %d before a size update, want 4096", limit)
	}
	for _, tt := range []struct {
		name, hex string
		table     []field // newest first
		size      int
		limit     int
	}{
		{"the setting", "3f45", nil, 0, 100},
		{"two fields", "40016101 62 40016301 64", []field{{"c", "d"}, {"a", "b"}}, 68, 100},
		{"the third evicts the first", "40016501 66", []field{{"e", "f"}, {"c", "d"}}, 68, 100},
		{"named after the one that it evicts", "7f00 0167", []field{{"c", "g"}, {"e", "f"}}, 68, 100},
		{"just room for both", "3f25", []field{{"c", "g"}, {"e", "f"}}, 68, 68},
		{"room for one", "3f24 be", []field{{"c", "g"}}, 34, 67},
		{"down and up", "20 3f45", nil, 0, 100},
		{"again", "40016101 62", []field{{"a", "b"}}, 34, 100},
		{"too large for the table", "4001 61 44" + strings.Repeat("62", 0x44), nil, 0, 100},
		{"just as large", "4001 61 43" + strings.Repeat("62", 0x43), []field{{"a", strings.Repeat("b", 0x43)}}, 100, 100},
		{"too large, named after what it evicts", "7e 7f00" + strings.Repeat("62", 0x7f), nil, 0, 100},
		{"none", "20 40016101 62", nil, 0, 0},
	} {
		if _, err := decode(d, unhex(t, tt.hex)); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if table, size, limit := d.Table(); !slices.Equal(table, tt.table) || size != tt.size || limit != tt.limit {
			t.Errorf("%s: got table %q of size %d, limit %d, want %q of %d, %d", tt.name, table, size, limit, tt.table, tt.size, tt.limit)
		}
	}

	d = hpack.NewDecoder(65536, 16<<10)
	if _, _, limit := d.Table(); limit != 4096 {
		t.Errorf("got limit %d before a size update, want 4096", limit)
	}
	_, err := decode(d, unhex(t, "3fe1ff03"))
	if _, _, limit := d.Table(); err != nil || limit != 65536 {
		t.Errorf("got limit %d, %v after a size update, want 65536", limit, err)
	}
}

// The name and value of a field that evicts others stay as they are.
func TestDecodeEvictedName(t *testing.T) {
	d := hpack.NewDecoder(4096, 1<<20)
	name, value := strings.Repeat("n", 2000), strings.Repeat("v", 2060)
	block := hpack.AppendInt([]byte{0x40}, 0, 7, len(name))
	block = append(block, name...)
	block = append(hpack.AppendInt(block, 0, 7, len(value)), value...)
	block = append(append(append(block, 0x7e), hpack.AppendInt(nil, 0, 7, len(value))...), value...)
	fields, err := decode(d, block)
	if want := []field{{name, value}, {name, value}}; err != nil || !slices.Equal(fields, want) {
		t.Errorf("got %d fields, %v, want 2", len(fields), err)
	}
	if table, size, _ := d.Table(); !slices.Equal(table, []field{{name, value}}) || size != 4092 {
		t.Errorf("got %d fields of %d bytes, want 1 of 4092", len(table), size)
	}
}

// The table has its own copies: the caller uses the block's memory again.
func TestDecodeCopies(t *testing.T) {
	d := hpack.NewDecoder(4096, 16<<10)
	block := unhex(t, "40016101 62", "40 82 18c7 82 18c7", "7e 0163", "41 0164")
	fields, err := decode(d, block)
	if err != nil {
		t.Fatal(err)
	}
	for i := range block {
		block[i] = 'x'
	}
	// The memory into which Huffman strings are decoded is used again too.
	if _, err := decode(d, unhex(t, "00 82 0001 82 0001")); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(fields)
	if table, _, _ := d.Table(); !slices.Equal(table, fields) {
		t.Errorf("got %q, want %q", table, fields)
	}
}

// A Decoder's memory is bounded: by the table's limit and what is kept of a string.
func TestDecodeRetained(t *testing.T) {
	const limit = 4096
	d := hpack.NewDecoder(limit, 1<<20)
	emit := func(name, value []byte) {}
	check := func(name string, block []byte) {
		t.Helper()
		if err := d.Decode(block, emit); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// The bytes are in blocks of 8 and more, and fields of 33 bytes have free
		// slots of 32 among them.
		if got, max := d.Retained(), 5*limit+16<<10; got > max {
			t.Errorf("%s: got %d bytes kept, want at most %d", name, got, max)
		}
	}
	// Many small fields give the table many slots. Then each holds a large one in turn.
	for range 200 {
		check("small", []byte{0x41, 1, 'a'})
	}
	large := append(hpack.AppendInt([]byte{0x41}, 0, 7, 2000), make([]byte, 2000)...)
	for range 1000 {
		check("large", large)
	}
	for range 1000 {
		// A short name of a large block, which the next field has too.
		check("named", hpack.AppendLiteral([]byte{0x40, 1, 'a', 0}, "x", strings.Repeat("\n", 4000)))
		check("small", []byte{0x7e, 1, 'b'})
	}
	check("a long string", hpack.AppendLiteral(nil, "x", strings.Repeat("0", 100<<10)))
}

func TestDecodeListSize(t *testing.T) {
	const limit = 16 << 10
	full := hpack.AppendLiteral(nil, "name", strings.Repeat("v", limit-32-4))
	if fields, err := decode(hpack.NewDecoder(4096, limit), full); err != nil || len(fields) != 1 {
		t.Errorf("got %d fields, %v, want 1", len(fields), err)
	}
	var e hpack.Encoder
	// One byte stands for 2,048.
	bomb := encode(&e, hpack.Index, field{"name", strings.Repeat("v", 2048-32-4)})
	for _, tt := range []struct {
		name   string
		block  []byte
		fields int
	}{
		{"a byte more", hpack.AppendLiteral(nil, "name", strings.Repeat("v", limit-32-3)), 0},
		{"a field more", append(full, 0x82), 1},
		{"a small field after one too large", append(hpack.AppendLiteral(nil, "name", strings.Repeat("v", limit)), 0x82), 0},
		{"many fields", bytes.Repeat([]byte{0x82}, 1000), limit / (7 + 3 + 32)},
		{"the same again", append(bomb, bytes.Repeat([]byte{0xbe}, 1<<20)...), 8},
	} {
		d := hpack.NewDecoder(4096, limit)
		fields, err := decode(d, tt.block)
		if want := "header block: the fields are larger than the limit of 16384 bytes"; !errors.Is(err, hpack.ErrListSize) || err.Error() != want {
			t.Errorf("%s: got %v, want error %q", tt.name, err, want)
		}
		if len(fields) != tt.fields {
			t.Errorf("%s: got %d fields, want %d", tt.name, len(fields), tt.fields)
		}
	}

	// The rest of the block still counts: for the table, and if it is wrong.
	d := hpack.NewDecoder(4096, 33)
	fields, err := decode(d, unhex(t, "82 40016101 62"))
	if !errors.Is(err, hpack.ErrListSize) || fields != nil {
		t.Errorf("got %q, %v, want none and ErrListSize", fields, err)
	}
	if fields, err = decode(d, unhex(t, "be")); !errors.Is(err, hpack.ErrListSize) {
		t.Errorf("got %q, %v, want ErrListSize", fields, err)
	}
	if table, _, _ := d.Table(); !slices.Equal(table, []field{{"a", "b"}}) {
		t.Errorf("got table %q, want a: b", table)
	}
	if _, err = decode(d, unhex(t, "82 80")); err == nil || errors.Is(err, hpack.ErrListSize) {
		t.Errorf("got %v, want the error of index 0", err)
	}
}

func TestDecodeAllocs(t *testing.T) {
	emit := func(name, value []byte) {}
	long := hpack.AppendInt([]byte{0x40}, 0, 7, 4000)
	long = append(append(long, make([]byte, 4000)...), 0)
	for _, tt := range []struct {
		name          string
		before, block []byte
	}{
		{"an answer of APNs", nil, answer()},
		{"indexes", unhex(t, "40016101 62 40016101 63"), unhex(t, "be bf")},
		// Otherwise 2 bytes could demand an allocation of 4,000.
		{"a long name, inserted again and again", long, bytes.Repeat([]byte{0x7e, 0}, 1000)},
		{"a field too large, inserted again and again", []byte{0x20}, bytes.Repeat([]byte{0x41, 1, 'a'}, 1000)},
	} {
		d := hpack.NewDecoder(4096, 1<<30)
		if err := d.Decode(tt.before, emit); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var err error
		n := testing.AllocsPerRun(10, func() { err = d.Decode(tt.block, emit) })
		if n != 0 || err != nil {
			t.Errorf("%s: got %v allocations, %v, want 0", tt.name, n, err)
		}
	}
}

// answer returns the block of an answer of APNs: the status is an index, the
// apns-id a literal that is never indexed, with Huffman code.
func answer() []byte {
	block := []byte{0x88, 0x10}
	for _, s := range []string{"apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b"} {
		block = hpack.AppendInt(block, 0x80, 7, hpack.HuffmanLen(s))
		block = hpack.AppendHuffman(block, s)
	}
	return block
}
