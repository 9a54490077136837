package hpack_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/hpack"
)

// The strings of RFC 7541 appendix C.4 with Huffman code.
const (
	customKey   = "88 25a849e95ba97d7f"
	customValue = "89 25a849e95bb8e8b4bf"
	noCache     = "86 a8eb10649cbf"
	example2    = "8c f1e3c2e5f23a6ba0ab90f4ff" // www.example.com
)

func TestAppendField(t *testing.T) {
	type step struct {
		name, value string
		indexing    hpack.Indexing
		hex         string
	}
	for _, tt := range []struct {
		name  string
		steps []step
		table []field // after them, newest first
	}{
		{"a field of the static table, however it is indexed", []step{
			{":method", "POST", hpack.Literal, "83"},
			{":method", "POST", hpack.IndexName, "83"},
			{":method", "POST", hpack.Index, "83"},
			{":scheme", "https", hpack.Literal, "87"},
			{":status", "500", hpack.Literal, "8e"},
			{"accept-encoding", "gzip, deflate", hpack.Literal, "90"},
			{"www-authenticate", "", hpack.Literal, "bd"},
		}, nil},
		{"Literal, the name in the static table", []step{
			{":path", "/a", hpack.Literal, "04 02 2f61"},
			{":path", "/a", hpack.Literal, "04 02 2f61"},
			{":method", "PUT", hpack.Literal, "02 03 505554"},
			{":status", "410", hpack.Literal, "08 03 343130"},
			{"authorization", "bearer e", hpack.Literal, "0f08 08 6265617265722065"},
		}, nil},
		{"Literal, the name in no table", []step{
			{"apns-id", "x", hpack.Literal, "00 07 61706e732d6964 01 78"},
			{"apns-id", "x", hpack.Literal, "00 07 61706e732d6964 01 78"},
			{"", "", hpack.Literal, "00 00 00"},
		}, nil},
		{"Literal, the name in the dynamic table", []step{
			{"custom-key", "custom-value", hpack.Index, "40" + customKey + customValue},
			{"custom-key", "no", hpack.Literal, "0f2f 02 6e6f"},
			{"custom-key", "custom-value", hpack.Literal, "0f2f 0c 637573746f6d2d76616c7565"},
		}, []field{{"custom-key", "custom-value"}}},
		{"IndexName", []step{
			{"custom-key", "custom-value", hpack.IndexName, "40" + customKey + customValue},
			{"custom-key", "no", hpack.IndexName, "0f2f 02 6e6f"},
			{"cache-control", "no-cache", hpack.Index, "58" + noCache},
			{"custom-key", "custom-value", hpack.IndexName, "0f30 0c 637573746f6d2d76616c7565"},
		}, []field{{"cache-control", "no-cache"}, {"custom-key", "custom-value"}}},
		{"IndexName, the name in the static table", []step{
			{":authority", "a", hpack.IndexName, "01 01 61"},
			{"authorization", "b", hpack.IndexName, "0f08 01 62"},
		}, nil},
		{"Index", []step{
			{":authority", "www.example.com", hpack.Index, "41" + example2},
			{":authority", "www.example.com", hpack.Index, "be"},
			{"custom-key", "custom-value", hpack.Index, "40" + customKey + customValue},
			{":authority", "www.example.com", hpack.Index, "bf"},
			{"custom-key", "no-cache", hpack.Index, "7e" + noCache},
			{"custom-key", "custom-value", hpack.Index, "bf"},
			{":authority", "www.example.com", hpack.Index, "c0"},
			{"custom-key", "no-cache", hpack.Index, "be"},
		}, []field{{"custom-key", "no-cache"}, {"custom-key", "custom-value"}, {":authority", "www.example.com"}}},
		{"Index, the Huffman code no shorter", []step{
			{":status", "307", hpack.Index, "48 03 333037"}, // as long
			{"!", "\n", hpack.Index, "40 01 21 01 0a"},      // longer
		}, []field{{"!", "\n"}, {":status", "307"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e hpack.Encoder
			d := hpack.NewDecoder(4096, 16<<10)
			for i, s := range tt.steps {
				got := e.AppendField(e.AppendBegin([]byte{9}), s.name, s.value, s.indexing)
				if want := unhex(t, "09", s.hex); !bytes.Equal(got, want) {
					t.Errorf("step %d: got %x, want %x", i+1, got[1:], want[1:])
				}
				if fields, err := decode(d, got[1:]); err != nil || !slices.Equal(fields, []field{{s.name, s.value}}) {
					t.Errorf("step %d: decoded %q, %v, want %s: %q", i+1, fields, err, s.name, s.value)
				}
			}
			checkTables(t, &e, d, tt.table)
		})
	}
}

// checkTables checks that both ends have the same table, which is want.
func checkTables(t *testing.T, e *hpack.Encoder, d *hpack.Decoder, want []field) {
	t.Helper()
	got, size, limit := e.Table()
	if !slices.Equal(got, want) {
		t.Errorf("got table %q, want %q", got, want)
	}
	decoded, dsize, dlimit := d.Table()
	if !slices.Equal(got, decoded) || size != dsize || limit != dlimit {
		t.Errorf("the encoder has table %q of %d bytes, limit %d\nthe decoder has table %q of %d bytes, limit %d", got, size, limit, decoded, dsize, dlimit)
	}
}

func TestAppendLiteral(t *testing.T) {
	for _, tt := range []struct{ name, value, hex string }{
		{":method", "POST", "83"},
		{":method", "PUT", "02 03 505554"}, // the Huffman code has 3 bytes too
		{":authority", "www.example.com", "01" + example2},
		{"cache-control", "no-cache", "0f09" + noCache},
		{"custom-key", "custom-value", "00" + customKey + customValue},
		{"", "", "00 00 00"},
		{"\n", "\r", "00 01 0a 01 0d"},
	} {
		got := hpack.AppendLiteral([]byte{9}, tt.name, tt.value)
		if want := unhex(t, "09", tt.hex); !bytes.Equal(got, want) {
			t.Errorf("%s: %s: got %x, want %x", tt.name, tt.value, got[1:], want[1:])
		}
		// It goes into any block: whatever the table has, and among any fields.
		var e hpack.Encoder
		d := hpack.NewDecoder(4096, 16<<10)
		other := field{tt.name + "x", tt.value + "y"}
		block := encode(&e, hpack.Index, other)
		block = append(block, got[1:]...)
		block = e.AppendField(block, other.Name, other.Value, hpack.Index)
		want := []field{other, {tt.name, tt.value}, other}
		if fields, err := decode(d, block); err != nil || !slices.Equal(fields, want) {
			t.Errorf("%s: %s: got %q, %v, want %q", tt.name, tt.value, fields, err, want)
		}
	}
}

func TestAppendPath(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 8)
	for _, tt := range []struct{ dir, name, hex string }{
		{"/", "", "04 01 2f"},
		{"/3/device/", "00ff", "04 0e 2f332f6465766963652f 30306666"},
		{"/3/device/", long, "04 7f0b 2f332f6465766963652f" + fmt.Sprintf("%x", long)}, // 138 bytes: 127, and 11 in another byte
	} {
		got := hpack.AppendPath([]byte{9}, tt.dir, tt.name)
		if want := unhex(t, "09", tt.hex); !bytes.Equal(got, want) {
			t.Errorf("%s, %s: got %x, want %x", tt.dir, tt.name, got[1:], want[1:])
		}
		want := []field{{":path", tt.dir + tt.name}}
		if fields, err := decode(hpack.NewDecoder(4096, 16<<10), got[1:]); err != nil || !slices.Equal(fields, want) {
			t.Errorf("%s, %s: decoded %q, %v, want %q", tt.dir, tt.name, fields, err, want)
		}
	}
}

// RFC 7541 section 4.2.
func TestSetMaxTableSize(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sizes [][]uint32 // those set before each block
		hex   []string   // what each block begins with
		limit int        // in the end
	}{
		{"the default", [][]uint32{{}}, []string{""}, 4096},
		{"the default is set", [][]uint32{{4096}}, []string{""}, 4096},
		{"more than the encoder uses", [][]uint32{{65536}, {1<<32 - 1}}, []string{"", ""}, 4096},
		{"lowered before the first block", [][]uint32{{100}, {}}, []string{"3f45", ""}, 100},
		{"lowered", [][]uint32{{}, {100}, {}}, []string{"", "3f45", ""}, 100},
		{"set again", [][]uint32{{100}, {100}}, []string{"3f45", ""}, 100},
		{"to 0", [][]uint32{{0}, {}}, []string{"20", ""}, 0},
		{"to 30 and 31", [][]uint32{{30}, {31}}, []string{"3e", "3f00"}, 31},
		{"raised", [][]uint32{{100}, {200}, {}}, []string{"3f45", "3fa901", ""}, 200},
		{"raised above the default", [][]uint32{{100}, {1 << 20}, {}}, []string{"3f45", "3fe11f", ""}, 4096},
		{"lowered and raised", [][]uint32{{}, {100, 4096}, {}}, []string{"", "3f45 3fe11f", ""}, 4096},
		{"lowered and raised above the default", [][]uint32{{0, 65536}}, []string{"20 3fe11f"}, 4096},
		{"lowered and raised in part", [][]uint32{{}, {100, 50, 70}, {}}, []string{"", "3f13 3f27", ""}, 70},
		{"lowered in steps", [][]uint32{{1000, 100}}, []string{"3f45"}, 100},
		{"raised in steps", [][]uint32{{50}, {70, 100}}, []string{"3f13", "3f45"}, 100},
		{"raised and lowered", [][]uint32{{50}, {100, 70}}, []string{"3f13", "3f27"}, 70},
		{"raised and lowered to the same", [][]uint32{{50}, {4096, 50}}, []string{"3f13", ""}, 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e hpack.Encoder
			d := hpack.NewDecoder(4096, 16<<10)
			for i, sizes := range tt.sizes {
				for _, n := range sizes {
					e.SetMaxTableSize(n)
				}
				got := e.AppendBegin([]byte{9})
				if want := unhex(t, "09", tt.hex[i]); !bytes.Equal(got, want) {
					t.Errorf("block %d: got %x, want %x", i+1, got[1:], want[1:])
				}
				got = e.AppendField(got, "a", "b", hpack.Index)
				if fields, err := decode(d, got[1:]); err != nil || !slices.Equal(fields, []field{{"a", "b"}}) {
					t.Errorf("block %d: decoded %q, %v, want a: b", i+1, fields, err)
				}
			}
			_, _, limit := e.Table()
			if limit != tt.limit {
				t.Errorf("got limit %d, want %d", limit, tt.limit)
			}
			var want []field
			if limit >= 2*34 {
				want = []field{{"a", "b"}}
			}
			checkTables(t, &e, d, want)
		})
	}
}

// What a smaller table evicts is inserted again.
func TestSetMaxTableSizeEvicts(t *testing.T) {
	var e hpack.Encoder
	d := hpack.NewDecoder(4096, 16<<10)
	a, b, c := field{"a", "1"}, field{"b", "2"}, field{"c", "3"}
	for i, tt := range []struct {
		sizes  []uint32
		fields []field
		hex    string
	}{
		{nil, []field{a, b, c}, "40016101 31 40016201 32 40016301 33"},
		{nil, []field{a, b, c}, "c0 bf be"},
		{[]uint32{100}, []field{c, b}, "3f45 be bf"},
		{nil, []field{a}, "40016101 31"},
		{[]uint32{0, 4096}, []field{a, b}, "20 3fe11f 40016101 31 40016201 32"},
		{nil, []field{a, b}, "bf be"},
		{[]uint32{0}, []field{a, b, a}, "20 00016101 31 00016201 32 00016101 31"},
	} {
		for _, n := range tt.sizes {
			e.SetMaxTableSize(n)
		}
		block := e.AppendBegin(nil)
		for _, f := range tt.fields {
			block = e.AppendField(block, f.Name, f.Value, hpack.Index)
		}
		if want := unhex(t, tt.hex); !bytes.Equal(block, want) {
			t.Errorf("block %d: got %x, want %x", i+1, block, want)
		}
		if fields, err := decode(d, block); err != nil || !slices.Equal(fields, tt.fields) {
			t.Errorf("block %d: got %q, %v, want %q", i+1, fields, err, tt.fields)
		}
	}
}

// A new size holds from the next block on.
func TestSetMaxTableSizeWithinBlock(t *testing.T) {
	var e hpack.Encoder
	d := hpack.NewDecoder(4096, 16<<10)
	block := e.AppendField(e.AppendBegin(nil), "a", "1", hpack.Index)
	e.SetMaxTableSize(0)
	block = e.AppendField(block, "a", "1", hpack.Index)
	if want := unhex(t, "40016101 31 be"); !bytes.Equal(block, want) {
		t.Errorf("got %x, want %x", block, want)
	}
	decode(d, block)
	checkTables(t, &e, d, []field{{"a", "1"}})
	block = e.AppendBegin(nil)
	if want := []byte{0x20}; !bytes.Equal(block, want) {
		t.Errorf("got %x, want %x", block, want)
	}
	decode(d, block)
	checkTables(t, &e, d, nil)
}

// With a table of 0 bytes each mode is a literal.
func TestTableOfZero(t *testing.T) {
	for _, indexing := range []hpack.Indexing{hpack.Literal, hpack.IndexName, hpack.Index} {
		var e hpack.Encoder
		e.SetMaxTableSize(0)
		for i, begin := range []string{"20", ""} {
			got := encode(&e, indexing, field{":method", "POST"}, field{":path", "/"}, field{":path", "a"}, field{"b", "c"}, field{"", ""})
			if want := unhex(t, begin, "83 84 04 0161 00 0162 0163 00 00 00"); !bytes.Equal(got, want) {
				t.Errorf("%d, block %d: got %x, want %x", indexing, i+1, got, want)
			}
		}
	}
}

// An entry of more than half of the table is not inserted.
func TestLargeEntry(t *testing.T) {
	for _, indexing := range []hpack.Indexing{hpack.IndexName, hpack.Index} {
		for _, limit := range []int{4096, 100} {
			var e hpack.Encoder
			d := hpack.NewDecoder(4096, 16<<10)
			e.SetMaxTableSize(uint32(limit))
			half := field{"a", strings.Repeat("\n", limit/2-33)} // longer in Huffman code
			more := field{"b", half.Value + "\n"}
			n := hpack.AppendInt(nil, 0, 7, len(half.Value))
			want := slices.Concat(e.AppendBegin(nil),
				[]byte{0x40, 1, 'a'}, n, []byte(half.Value),
				[]byte{0, 1, 'b'}, hpack.AppendInt(nil, 0, 7, len(more.Value)), []byte(more.Value))
			got := encode(&e, indexing, half, more)
			if limit == 100 {
				got = append([]byte{0x3f, 0x45}, got...)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d, limit %d: got %x, want %x", indexing, limit, got, want)
			}
			if fields, err := decode(d, got); err != nil || !slices.Equal(fields, []field{half, more}) {
				t.Errorf("%d, limit %d: got %q, %v, want %q, %q", indexing, limit, fields, err, half, more)
			}
			checkTables(t, &e, d, []field{half})
		}
	}
}

// The encoder knows which fields are evicted, for a thousand times more than the
// table holds.
func TestEviction(t *testing.T) {
	var e hpack.Encoder
	d := hpack.NewDecoder(4096, 1<<20)
	const room = 4096 / 40 // fields of 40 bytes
	f := func(i int) field { return field{"name", fmt.Sprintf("%04d", i)} }
	for i := range 5000 {
		fields := []field{f(i), f(max(i-room+1, 0)), f(i)} // newest, oldest, newest
		block := encode(&e, hpack.Index, fields...)
		if got, err := decode(d, block); err != nil || !slices.Equal(got, fields) {
			t.Fatalf("field %d: got %q, %v, want %q", i, got, err, fields)
		}
		// 1 byte for the name's index, 1 for the length, 3 or 4 for the value.
		if i > room && len(block) > 1+1+4+1+1 {
			t.Errorf("field %d: got %d bytes, want the last two fields to be indexes", i, len(block))
		}
	}
	var want []field
	for i := range room {
		want = append(want, f(4999-i))
	}
	checkTables(t, &e, d, want)

	evicted := f(4999 - room)
	block := encode(&e, hpack.Index, evicted)
	if len(block) < 3 {
		t.Errorf("got %x for a field that was evicted, want it to be inserted", block)
	}
	if got, err := decode(d, block); err != nil || !slices.Equal(got, []field{evicted}) {
		t.Errorf("got %q, %v, want %q", got, err, evicted)
	}
	checkTables(t, &e, d, append([]field{evicted}, want[:room-1]...))
}

// A name that IndexName inserted is inserted again after it was evicted.
func TestIndexNameEviction(t *testing.T) {
	var e hpack.Encoder
	d := hpack.NewDecoder(4096, 1<<20)
	inserted := 0
	for i := range 500 {
		fields := []field{{"apns-id", fmt.Sprint(i)}, {"other", fmt.Sprint(i)}}
		block := e.AppendField(e.AppendBegin(nil), fields[0].Name, fields[0].Value, hpack.IndexName)
		if block[0] == 0x40 {
			inserted++
		}
		block = e.AppendField(block, fields[1].Name, fields[1].Value, hpack.Index)
		if got, err := decode(d, block); err != nil || !slices.Equal(got, fields) {
			t.Fatalf("block %d: got %q, %v, want %q", i, got, err, fields)
		}
	}
	// About 100 of the other fields push it out.
	if inserted < 3 || inserted > 6 {
		t.Errorf("the name was inserted %d times, want 3 to 6", inserted)
	}
}

// Each byte by itself, and all together, in names and values of each form.
func TestAllBytes(t *testing.T) {
	var all []byte
	fields := []field{{"", ""}}
	for i := range 256 {
		all = append(all, byte(i))
		s := string(all[i:])
		fields = append(fields, field{"x", s}, field{s, "x"})
	}
	every := string(all)
	zeros := strings.Repeat("0", 2000) // so that the Huffman code is shorter
	fields = append(fields, field{"every", every}, field{every, "every"}, field{zeros + every, every + zeros})
	for _, n := range []int{126, 127, 128, 254, 255, 256, 127 + 127, 127 + 128, 1337} {
		fields = append(fields, field{"n", strings.Repeat("0", n)}, field{"n", strings.Repeat("\n", n)})
	}
	for _, f := range fields {
		for _, indexing := range []hpack.Indexing{hpack.Literal, hpack.IndexName, hpack.Index, -1} {
			var e hpack.Encoder
			d := hpack.NewDecoder(4096, 1<<20)
			for range 2 {
				var block []byte
				if indexing < 0 {
					block = hpack.AppendLiteral(nil, f.Name, f.Value)
				} else {
					block = encode(&e, indexing, f)
				}
				if got, err := decode(d, block); err != nil || !slices.Equal(got, []field{f}) {
					t.Errorf("%d: got %q, %v, want %q", indexing, got, err, f)
				}
			}
		}
	}
}

func TestStaticTable(t *testing.T) {
	if hpack.StaticFields != 61 {
		t.Errorf("got %d fields, want 61", hpack.StaticFields)
	}
	names := make(map[string]int) // the first field of each
	for i := 1; i <= hpack.StaticFields; i++ {
		f := hpack.StaticField(i)
		if names[f.Name] == 0 {
			names[f.Name] = i
		}
		if got, exact := hpack.FindStatic(f.Name, f.Value); got != i || !exact {
			t.Errorf("%s: %s: got %d, %t, want %d", f.Name, f.Value, got, exact, i)
		}
		if got, exact := hpack.FindStatic(f.Name, f.Value+"x"); got != names[f.Name] || exact {
			t.Errorf("%s: %sx: got %d, %t, want %d for the name", f.Name, f.Value, got, exact, names[f.Name])
		}
		for _, name := range []string{f.Name + "x", f.Name[1:], strings.ToUpper(f.Name), f.Name[:1] + "\x00" + f.Name[2:]} {
			if got, _ := hpack.FindStatic(name, f.Value); got != 0 {
				t.Errorf("%q: got %d, want 0", name, got)
			}
		}
		if got, err := decode(hpack.NewDecoder(0, 1<<20), hpack.AppendInt(nil, 0x80, 7, i)); err != nil || !slices.Equal(got, []field{f}) {
			t.Errorf("index %d: got %q, %v, want %q", i, got, err, f)
		}
	}
	// Some of RFC 7541 appendix A. The vectors have most of the others.
	for i, want := range map[int]field{
		1: {":authority", ""}, 8: {":status", "200"}, 14: {":status", "500"}, 16: {"accept-encoding", "gzip, deflate"},
		31: {"content-type", ""}, 46: {"location", ""}, 53: {"retry-after", ""}, 61: {"www-authenticate", ""},
	} {
		if got := hpack.StaticField(i); got != want {
			t.Errorf("index %d: got %q, want %q", i, got, want)
		}
	}
}

func TestEncodeAllocs(t *testing.T) {
	fields := []field{{":method", "POST"}, {":authority", "api.push.apple.com"}, {"apns-topic", "com.example.app"}, {"apns-priority", "10"}}
	for _, indexing := range []hpack.Indexing{hpack.Literal, hpack.IndexName, hpack.Index} {
		var e hpack.Encoder
		block := encode(&e, indexing, fields...)
		n := testing.AllocsPerRun(10, func() {
			block = e.AppendBegin(block[:0])
			for _, f := range fields {
				block = e.AppendField(block, f.Name, f.Value, indexing)
			}
		})
		if n != 0 {
			t.Errorf("%d: got %v allocations, want 0", indexing, n)
		}
	}
}
