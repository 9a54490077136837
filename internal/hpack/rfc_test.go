package hpack_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/hpack"
)

type field = hpack.Field

// unhex returns the bytes of hexadecimal digits, with any white space among them.
func unhex(tb testing.TB, s ...string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(strings.Join(s, "")), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// decode returns the fields of a block.
func decode(d *hpack.Decoder, block []byte) ([]field, error) {
	var fields []field
	err := d.Decode(block, func(name, value []byte) {
		fields = append(fields, field{string(name), string(value)})
	})
	return fields, err
}

// encode returns the block of some fields.
func encode(e *hpack.Encoder, indexing hpack.Indexing, fields ...field) []byte {
	block := e.AppendBegin(nil)
	for _, f := range fields {
		block = e.AppendField(block, f.Name, f.Value, indexing)
	}
	return block
}

// The examples of RFC 7541 appendix C.1. The 8 bits of C.1.3 occur nowhere else.
func TestInt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		hex    string
		prefix uint
		n      int
	}{
		{"C.1.1", "0a", 5, 10},
		{"C.1.2", "1f 9a 0a", 5, 1337},
		{"C.1.3", "2a", 8, 42},
		{"all but one bit of the prefix", "1e", 5, 30},
		{"a full prefix", "1f 00", 5, 31},
		{"a full prefix of 7 bits", "7f 00", 7, 127},
		{"1 byte", "7f 7f", 7, 254},
		{"2 bytes", "7f 80 01", 7, 255},
		{"3 bytes", "0f 80 80 01", 4, 15 + 1<<14},
		{"4 bytes", "0f 80 80 80 01", 4, 15 + 1<<21},
		{"the largest", "0f ff ff ff 7f", 4, 15 + 1<<28 - 1},
	} {
		b := unhex(t, tt.hex)
		if got := hpack.AppendInt([]byte{9}, 0, tt.prefix, tt.n); !bytes.Equal(got[1:], b) {
			t.Errorf("%s: got %x, want %x", tt.name, got[1:], b)
		}
		n, size, err := hpack.ReadInt(append(b, 0xff), tt.prefix)
		if n != tt.n || size != len(b) || err != nil {
			t.Errorf("%s: got %d of %d bytes, %v, want %d of %d bytes", tt.name, n, size, err, tt.n, len(b))
		}
		// The bits before the prefix belong to something else.
		if tt.prefix < 8 {
			b[0] |= 0x80
			if n, _, err := hpack.ReadInt(b, tt.prefix); n != tt.n || err != nil {
				t.Errorf("%s with a bit before: got %d, %v, want %d", tt.name, n, err, tt.n)
			}
		}
	}
	// A number may be longer than it need be.
	if n, size, err := hpack.ReadInt(unhex(t, "7f 81 80 80 00"), 7); n != 128 || size != 5 || err != nil {
		t.Errorf("got %d of %d bytes, %v, want 128 of 5 bytes", n, size, err)
	}
}

// An example is one of RFC 7541 appendix C: the blocks of one connection.
type example struct {
	name     string
	max      int            // the table's limit
	indexing hpack.Indexing // that makes an Encoder send this
	noEncode bool           // an Encoder does not send this
	blocks   []exampleBlock
}

type exampleBlock struct {
	block   []byte
	fields  []field
	table   []field // after it, newest first
	size    int     // of the table
	encoded []byte  // what an Encoder sends if it is not block
}

func examples(tb testing.TB) []example {
	type fields = []field
	b := func(s ...string) []byte { return unhex(tb, s...) }
	var (
		get       = field{":method", "GET"}
		http      = field{":scheme", "http"}
		https     = field{":scheme", "https"}
		root      = field{":path", "/"}
		index     = field{":path", "/index.html"}
		authority = field{":authority", "www.example.com"}
		noCache   = field{"cache-control", "no-cache"}
		custom    = field{"custom-key", "custom-value"}
		header    = field{"custom-key", "custom-header"}

		ok       = field{":status", "200"}
		found    = field{":status", "302"}
		moved    = field{":status", "307"}
		private  = field{"cache-control", "private"}
		date21   = field{"date", "Mon, 21 Oct 2013 20:13:21 GMT"}
		date22   = field{"date", "Mon, 21 Oct 2013 20:13:22 GMT"}
		location = field{"location", "https://www.example.com"}
		gzip     = field{"content-encoding", "gzip"}
		cookie   = field{"set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"}
	)
	requests := func(blocks ...[]byte) []exampleBlock {
		return []exampleBlock{
			{blocks[0], fields{get, http, root, authority}, fields{authority}, 57, nil},
			{blocks[1], fields{get, http, root, authority, noCache}, fields{noCache, authority}, 110, nil},
			{blocks[2], fields{get, https, index, authority, custom}, fields{custom, noCache, authority}, 164, nil},
		}
	}
	responses := func(blocks ...[]byte) []exampleBlock {
		return []exampleBlock{
			{blocks[0], fields{found, private, date21, location}, fields{location, date21, private, found}, 222, nil},
			{blocks[1], fields{moved, private, date21, location}, fields{moved, location, date21, private}, 222, nil},
			{blocks[2], fields{ok, private, date22, location, gzip, cookie}, fields{cookie, gzip, date22}, 215, nil},
		}
	}
	all := []example{
		{"C.2.1", 4096, hpack.Index, true, []exampleBlock{{b(
			"40",                            // literal with incremental indexing, new name
			"0a 637573746f6d2d6b6579",       // custom-key
			"0d 637573746f6d2d686561646572", // custom-header
		), fields{header}, fields{header}, 55, nil}}},
		{"C.2.2", 4096, hpack.Literal, false, []exampleBlock{{b(
			"04",                          // literal without indexing, name of index 4: :path
			"0c 2f73616d706c652f70617468", // /sample/path
		), fields{{":path", "/sample/path"}}, nil, 0, nil}}},
		{"C.2.3", 4096, hpack.Literal, true, []exampleBlock{{b(
			"10",                  // literal never indexed, new name
			"08 70617373776f7264", // password
			"06 736563726574",     // secret
		), fields{{"password", "secret"}}, nil, 0, nil}}},
		{"C.2.4", 4096, hpack.Literal, false, []exampleBlock{{b(
			"82", // index 2
		), fields{get}, nil, 0, nil}}},
		{"C.3", 4096, hpack.Index, true, requests(b(
			"82 86 84",                             // GET, http, /
			"41 0f 7777772e6578616d706c652e636f6d", // :authority, www.example.com
		), b(
			"82 86 84 be",            // be: index 62, the :authority
			"58 08 6e6f2d6361636865", // cache-control, no-cache
		), b(
			"82 87 85 bf",                    // https, /index.html, index 63
			"40 0a 637573746f6d2d6b6579",     // custom-key
			"   0c 637573746f6d2d76616c7565", // custom-value
		))},
		{"C.4", 4096, hpack.Index, false, requests(b(
			"82 86 84",                       // GET, http, /
			"41 8c f1e3c2e5f23a6ba0ab90f4ff", // :authority, www.example.com
		), b(
			"82 86 84 be",
			"58 86 a8eb10649cbf", // cache-control, no-cache
		), b(
			"82 87 85 bf",
			"40 88 25a849e95ba97d7f",   // custom-key
			"   89 25a849e95bb8e8b4bf", // custom-value
		))},
		{"C.5", 256, hpack.Index, true, responses(b(
			"48 03 333032",         // :status, 302
			"58 07 70726976617465", // cache-control, private
			"61 1d 4d6f6e2c203231204f637420323031332032303a31333a323120474d54", // date
			"6e 17 68747470733a2f2f7777772e6578616d706c652e636f6d",             // location
		), b(
			"48 03 333037", // :status, 307; evicts the 302
			"c1 c0 bf",     // the other three
		), b(
			"88 c1", // :status 200, cache-control
			"61 1d 4d6f6e2c203231204f637420323031332032303a31333a323220474d54", // date; evicts cache-control
			"c0",             // location
			"5a 04 677a6970", // content-encoding, gzip; evicts the old date
			"77 38 666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49", // set-cookie; evicts location
			"553b206d61782d6167653d333630303b2076657273696f6e3d31",               // and the 307
		))},
		{"C.6", 256, hpack.Index, false, responses(b(
			"48 82 6402",       // :status, 302
			"58 85 aec3771a4b", // cache-control, private
			"61 96 d07abe941054d444a8200595040b8166e082a62d1bff", // date
			"6e 91 9d29ad171863c78f0b97c8e9ae82ae43d3",           // location
		), b(
			"48 83 640eff", // :status, 307; the code is no shorter than the string
			"c1 c0 bf",
		), b(
			"88 c1",
			"61 96 d07abe941054d444a8200595040b8166e084a62d1bff", // date
			"c0",
			"5a 83 9bd9ab", // content-encoding, gzip
			"77 ad 94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f", // set-cookie
			"9587316065c003ed4ee5b1063d5007",
		))},
	}
	all[len(all)-1].blocks[1].encoded = b(
		"48 03 333037", // an Encoder uses the code only if it is shorter
		"c1 c0 bf",
	)
	return all
}

func TestExamplesDecode(t *testing.T) {
	for _, e := range examples(t) {
		d := hpack.NewDecoder(e.max, 1<<20)
		// The examples count on a limit that both ends know. A size update sets it.
		if _, err := decode(d, hpack.AppendInt(nil, 0x20, 5, e.max)); err != nil {
			t.Fatal(err)
		}
		for i, b := range e.blocks {
			fields, err := decode(d, b.block)
			if err != nil || !slices.Equal(fields, b.fields) {
				t.Errorf("%s, block %d: got %q, %v, want %q", e.name, i+1, fields, err, b.fields)
			}
			table, size, _ := d.Table()
			if !slices.Equal(table, b.table) || size != b.size {
				t.Errorf("%s, block %d: got table %q of size %d, want %q of %d", e.name, i+1, table, size, b.table, b.size)
			}
		}
	}
}

func TestExamplesEncode(t *testing.T) {
	for _, e := range examples(t) {
		if e.noEncode {
			continue
		}
		var enc hpack.Encoder
		enc.SetMaxTableSize(uint32(e.max))
		enc.AppendBegin(nil)
		for i, b := range e.blocks {
			want := b.block
			if b.encoded != nil {
				want = b.encoded
			}
			if got := encode(&enc, e.indexing, b.fields...); !bytes.Equal(got, want) {
				t.Errorf("%s, block %d: got %x, want %x", e.name, i+1, got, want)
			}
			table, size, _ := enc.Table()
			if !slices.Equal(table, b.table) || size != b.size {
				t.Errorf("%s, block %d: got table %q of size %d, want %q of %d", e.name, i+1, table, size, b.table, b.size)
			}
		}
	}
}

// A block that is cut off is an error, or has the fields before the cut.
func TestExamplesTruncated(t *testing.T) {
	for _, e := range examples(t) {
		for i, b := range e.blocks {
			decoded := 0
			for n := range b.block {
				d := hpack.NewDecoder(4096, 1<<20)
				decode(d, hpack.AppendInt(nil, 0x20, 5, e.max))
				for _, before := range e.blocks[:i] {
					decode(d, before.block)
				}
				fields, err := decode(d, b.block[:n:n])
				if !slices.Equal(fields, b.fields[:len(fields)]) || len(fields) < decoded {
					t.Errorf("%s, block %d, %d bytes: got %q, want the first of %q", e.name, i+1, n, fields, b.fields)
				}
				if err == nil {
					decoded = len(fields)
					continue
				}
				if text := err.Error(); !strings.Contains(text, "ends in the middle") && !strings.Contains(text, "the rest of the block") {
					t.Errorf("%s, block %d, %d bytes: got error %q, want one about its end", e.name, i+1, n, text)
				}
			}
			if decoded != len(b.fields)-1 {
				t.Errorf("%s, block %d: got at most %d fields of a cut block, want %d", e.name, i+1, decoded, len(b.fields)-1)
			}
		}
	}
}
