package apnstest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A hpackExample is one of RFC 7541's appendix C.
type hpackExample struct {
	name   string
	max    int // of the table
	blocks []hpackBlock
}

type hpackBlock struct {
	hex   string
	list  []headerField
	table []headerField // after it, newest first
	size  int
}

var hpackExamples = func() []hpackExample {
	f := func(name, value string) headerField { return headerField{name, value} }
	type list = []headerField
	var (
		get       = f(":method", "GET")
		http      = f(":scheme", "http")
		https     = f(":scheme", "https")
		root      = f(":path", "/")
		authority = f(":authority", "www.example.com")
		noCache   = f("cache-control", "no-cache")
		custom    = f("custom-key", "custom-value")

		found    = f(":status", "302")
		moved    = f(":status", "307")
		private  = f("cache-control", "private")
		date21   = f("date", "Mon, 21 Oct 2013 20:13:21 GMT")
		date22   = f("date", "Mon, 21 Oct 2013 20:13:22 GMT")
		location = f("location", "https://www.example.com")
		gzip     = f("content-encoding", "gzip")
		cookie   = f("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
	)
	requests := func(hex ...string) []hpackBlock {
		return []hpackBlock{
			{hex[0], list{get, http, root, authority}, list{authority}, 57},
			{hex[1], list{get, http, root, authority, noCache}, list{noCache, authority}, 110},
			{hex[2], list{get, https, f(":path", "/index.html"), authority, custom}, list{custom, noCache, authority}, 164},
		}
	}
	responses := func(hex ...string) []hpackBlock {
		return []hpackBlock{
			{hex[0], list{found, private, date21, location}, list{location, date21, private, found}, 222},
			{hex[1], list{moved, private, date21, location}, list{moved, location, date21, private}, 222},
			{hex[2], list{f(":status", "200"), private, date22, location, gzip, cookie}, list{cookie, gzip, date22}, 215},
		}
	}
	indexed := list{f("custom-key", "custom-header")}
	return []hpackExample{
		{"C.2.1", 4096, []hpackBlock{{"400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", indexed, indexed, 55}}},
		{"C.2.2", 4096, []hpackBlock{{"040c 2f73 616d 706c 652f 7061 7468", list{f(":path", "/sample/path")}, nil, 0}}},
		{"C.2.3", 4096, []hpackBlock{{"1008 7061 7373 776f 7264 0673 6563 7265 74", list{f("password", "secret")}, nil, 0}}},
		{"C.2.4", 4096, []hpackBlock{{"82", list{get}, nil, 0}}},
		{"C.3", 4096, requests(
			"8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
			"8286 84be 5808 6e6f 2d63 6163 6865",
			"8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
		)},
		{"C.4", 4096, requests(
			"8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
			"8286 84be 5886 a8eb 1064 9cbf",
			"8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
		)},
		{"C.5", 256, responses(
			`4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
			2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
			6c65 2e63 6f6d`,
			"4803 3330 37c1 c0bf",
			`88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
			54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
			5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
			3d31`,
		)},
		{"C.6", 256, responses(
			`4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
			2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3`,
			"4883 640e ffc1 c0bf",
			`88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
			77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
			9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
		)},
	}
}()

func TestHPACKExamples(t *testing.T) {
	for _, e := range hpackExamples {
		d := newHPACKDecoder(e.max)
		for i, b := range e.blocks {
			list, err := d.decode(unhex(t, b.hex))
			if err != nil || !slices.Equal(list, b.list) {
				t.Errorf("%s, block %d: got %q, %v, want %q", e.name, i+1, list, err, b.list)
			}
			table := slices.Clone(d.table)
			slices.Reverse(table)
			if !slices.Equal(table, b.table) || d.size != b.size {
				t.Errorf("%s, block %d: got table %q of size %d, want %q of %d", e.name, i+1, table, d.size, b.table, b.size)
			}
		}
	}
}

// A block that is cut off is an error or, if between fields, has those before.
func TestHPACKTruncated(t *testing.T) {
	for _, e := range hpackExamples {
		for i, b := range e.blocks {
			block := unhex(t, b.hex)
			decoded := 0
			for n := range block {
				d := newHPACKDecoder(e.max)
				for _, before := range e.blocks[:i] {
					d.decode(unhex(t, before.hex))
				}
				list, err := d.decode(block[:n:n])
				if err != nil {
					if want := "header block: ends early"; err.Error() != want {
						t.Errorf("%s, block %d, %d bytes: got error %q, want %q", e.name, i+1, n, err, want)
					}
					continue
				}
				if !slices.Equal(list, b.list[:decoded]) {
					t.Errorf("%s, block %d, %d bytes: got %q, want %q", e.name, i+1, n, list, b.list[:decoded])
				}
				decoded++
			}
			if decoded != len(b.list) {
				t.Errorf("%s, block %d: got %d lengths that decode, want %d", e.name, i+1, decoded, len(b.list))
			}
		}
	}
}

func TestHPACKInteger(t *testing.T) {
	const tooLarge, early = "header block: number too large", "header block: ends early"
	for _, tt := range []struct {
		hex  string
		bits int
		want int
		left int
		err  string
	}{
		{hex: "0a", bits: 5, want: 10},       // C.1.1
		{hex: "ea", bits: 5, want: 10},       // what is above it
		{hex: "1f9a0a", bits: 5, want: 1337}, // C.1.2
		{hex: "2a", bits: 8, want: 42},       // C.1.3
		{hex: "1e00", bits: 5, want: 30, left: 1},
		{hex: "1f00", bits: 5, want: 31},
		{hex: "ff00ff", bits: 7, want: 127, left: 1},
		{hex: "7f808000", bits: 7, want: 127}, // longer than it need be
		{hex: "0f8080808001", bits: 4, want: 15 + maxHeaderInt},
		{hex: "0f8180808001", bits: 4, err: tooLarge},
		{hex: "0fffffffff0f", bits: 4, err: tooLarge},             // 1<<32 - 1
		{hex: "0fffffffffffffffffff01", bits: 4, err: tooLarge},   // 1<<64 - 1
		{hex: "0f80808080808080808002", bits: 4, err: tooLarge},   // 1<<64
		{hex: "0f8080808080808080808000", bits: 4, err: tooLarge}, // 0 in too many bytes
		{hex: "0f" + strings.Repeat("ff", 99), bits: 4, err: tooLarge},
		{hex: "", bits: 5, err: early},
		{hex: "1f", bits: 5, err: early},
		{hex: "1f9a", bits: 5, err: early},
	} {
		r := hpackReader{rest: unhex(t, tt.hex)}
		n := r.int(tt.bits)
		got := ""
		if r.err != nil {
			got = r.err.Error()
		}
		if n != tt.want || len(r.rest) != tt.left || got != tt.err {
			t.Errorf("%q, %d bits: got %d, %d bytes left, error %q, want %d, %d, %q", tt.hex, tt.bits, n, len(r.rest), got, tt.want, tt.left, tt.err)
		}
	}
}

func TestHPACKMalformed(t *testing.T) {
	const padding, end = "bad padding of a string", "end of string within a string"
	for _, tt := range []struct{ name, hex, err string }{
		{"index 0", "80", "index 0, of 61"},
		{"index past the static table", "be", "index 62, of 61"},
		{"index past the dynamic table", "4001610162 be bf", "index 63, of 62"},
		{"index of a name past the tables", "7e 0161", "index 62, of 61"},
		{"index of a name, not added", "0f2f 0161", "index 62, of 61"},
		{"index of a name, never added", "1f2f 0161", "index 62, of 61"},
		{"large index", "ffffffff7f", "index 268435582, of 61"},
		{"index overflow", "ffffffffff7f", "number too large"},
		{"length overflow", "007fffffffffffffffffff7f", "number too large"},
		{"long name", "000261", "ends early"},
		{"very long name", "007fffffff7f61", "ends early"},
		{"no value", "000161", "ends early"},
		{"error in an added field", "40 81ff 0161", padding},
		{"size update too large", "3fe21f", "table size 4097, above 4096"},
		{"size update cut off", "3fe1", "ends early"},
		{"size update overflow", "3fffffffff7f", "number too large"},
		{"size update after a field", "82 20", "table size update after a field"},
		{"size update between fields", "20 82 3e 82", "table size update after a field"},

		// As a value of "a": a code of 5 bits, 00011, and what comes after it.
		{"padding of zeros", "000161 81 18", padding},
		{"padding not all ones", "000161 81 1e", padding},
		{"padding alone", "000161 81 ff", padding},
		{"padding of a byte too many", "000161 82 1fff", padding},
		{"padding of 29 bits", "000161 84 1fffffff", padding},
		{"incomplete code", "000161 82 1ffe", padding},
		{"end of string", "000161 84 ffffffff", end},
		{"end of string after a code", "000161 85 1fffffffff", end},
		{"end of string and more", "000161 86 fffffffc 1818", end},
	} {
		list, err := newHPACKDecoder(4096).decode(unhex(t, tt.hex))
		if list != nil || err == nil || err.Error() != "header block: "+tt.err {
			t.Errorf("%s: got %q, %v, want error %q", tt.name, list, err, tt.err)
		}
	}
}

func TestHPACKTableSize(t *testing.T) {
	d := newHPACKDecoder(100)
	for _, tt := range []struct {
		name, hex string
		table     []headerField // oldest first
		size      int
		limit     int
	}{
		{"two fields", "40016101 62 40016301 64", []headerField{{"a", "b"}, {"c", "d"}}, 68, 100},
		{"the third drops the first", "40016501 66", []headerField{{"c", "d"}, {"e", "f"}}, 68, 100},
		{"named after the one it drops", "7f00 0167", []headerField{{"e", "f"}, {"c", "g"}}, 68, 100},
		{"just room for both", "3f25", []headerField{{"e", "f"}, {"c", "g"}}, 68, 68},
		{"room for one", "3f24 be", []headerField{{"c", "g"}}, 34, 67},
		{"down and up", "20 3f45", nil, 0, 100},
		{"again", "40016101 62", []headerField{{"a", "b"}}, 34, 100},
		{"too large for the table", "4001 61 44" + strings.Repeat("62", 0x44), nil, 0, 100},
		{"just as large", "4001 61 43" + strings.Repeat("62", 0x43), []headerField{{"a", strings.Repeat("b", 0x43)}}, 100, 100},
		{"none", "20 40016101 62", nil, 0, 0},
	} {
		if _, err := d.decode(unhex(t, tt.hex)); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if !slices.Equal(d.table, tt.table) || d.size != tt.size || d.limit != tt.limit {
			t.Errorf("%s: got table %q of size %d, limit %d, want %q of %d, %d", tt.name, d.table, d.size, d.limit, tt.table, tt.size, tt.limit)
		}
	}

	d = newHPACKDecoder(65536)
	if d.limit != 4096 {
		t.Errorf("got limit %d before a size update, want 4096", d.limit)
	}
	if _, err := d.decode(unhex(t, "3fe1ff03")); err != nil || d.limit != 65536 {
		t.Errorf("got limit %d, %v after a size update, want 65536", d.limit, err)
	}
}

func TestHPACKListLimit(t *testing.T) {
	full := appendField(nil, "name", strings.Repeat("v", maxHeaderList-32-4))
	if list, err := newHPACKDecoder(0).decode(full); err != nil || len(list) != 1 {
		t.Errorf("got %d fields, %v, want 1", len(list), err)
	}
	// A byte stands for 4096.
	bomb := slices.Concat([]byte{0x40}, appendHPACKString(nil, "name"), appendHPACKString(nil, strings.Repeat("v", 4096-32-4)))
	for name, block := range map[string][]byte{
		"a byte more":    appendField(nil, "name", strings.Repeat("v", maxHeaderList-32-3)),
		"a field more":   append(full, 0x82),
		"many fields":    bytes.Repeat([]byte{0x82}, 1000),
		"the same again": append(bomb, bytes.Repeat([]byte{0xbe}, 1<<20)...),
	} {
		list, err := newHPACKDecoder(4096).decode(block)
		if want := "header block: the fields are larger than 16384 bytes"; list != nil || err == nil || err.Error() != want {
			t.Errorf("%s: got %d fields, %v, want error %q", name, len(list), err, want)
		}
	}
}

// Some codes of RFC 7541's appendix B, for each way of getting them wrong.
func TestHuffmanCodes(t *testing.T) {
	table := huffman()
	if got := table.end[30]; got != 1<<30 {
		t.Errorf("the codes end at %#x, want %#x", got, 1<<30)
	}
	codes := make(map[int][2]int) // and their lengths
	for i, symbol := range table.symbols {
		length := int(huffmanLengths[symbol]-'a') + 5
		codes[int(symbol)] = [2]int{i + table.base[length], length}
	}
	for symbol, want := range map[int][2]int{
		0:          {0x1ff8, 13},
		1:          {0x7fffd8, 23},
		2:          {0xfffffe2, 28},
		'\t':       {0xffffea, 24},
		'\n':       {0x3ffffffc, 30},
		'\r':       {0x3ffffffd, 30},
		22:         {0x3ffffffe, 30},
		31:         {0xffffffb, 28},
		' ':        {0x14, 6},
		'!':        {0x3f8, 10},
		'0':        {0, 5},
		':':        {0x5c, 7},
		'&':        {0xf8, 8},
		'\\':       {0x7fff0, 19},
		'a':        {3, 5},
		't':        {9, 5},
		127:        {0xffffffc, 28},
		128:        {0xfffe6, 20},
		255:        {0x3ffffee, 26},
		huffmanEnd: {0x3fffffff, 30},
	} {
		if got := codes[symbol]; got != want {
			t.Errorf("symbol %d: got code %#x of %d bits, want %#x of %d", symbol, got[0], got[1], want[0], want[1])
		}
	}
}

func TestHPACKAppend(t *testing.T) {
	for _, tt := range []struct {
		got  []byte
		want string
	}{
		{appendField(nil, "apns-id", "x"), "00 07 61706e732d6964 01 78"},
		{appendField([]byte{1}, "", ""), "01 00 00 00"},
		{appendField(nil, "a", strings.Repeat("b", 126)), "00 01 61 7e" + strings.Repeat("62", 126)},
		{appendField(nil, "a", strings.Repeat("b", 127)), "00 01 61 7f00" + strings.Repeat("62", 127)},
		{appendField(nil, "a", strings.Repeat("b", 1337)), "00 01 61 7fba09" + strings.Repeat("62", 1337)},
		{appendStatus([]byte{1}, 200), "01 88"},
		{appendStatus(nil, 204), "89"},
		{appendStatus(nil, 206), "8a"},
		{appendStatus(nil, 304), "8b"},
		{appendStatus(nil, 400), "8c"},
		{appendStatus(nil, 404), "8d"},
		{appendStatus(nil, 500), "8e"},
		{appendStatus(nil, 410), "08 03 343130"},
	} {
		if want := unhex(t, tt.want); !bytes.Equal(tt.got, want) {
			t.Errorf("got %x, want %x", tt.got, want)
		}
	}
	for code := 100; code < 600; code++ {
		want := []headerField{{":status", fmt.Sprint(code)}}
		if got, err := newHPACKDecoder(0).decode(appendStatus(nil, code)); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

// A decoder that saw garbage has its table in order, and either an error or
// fields, which decode again to themselves. So does any field that is encoded.
func FuzzHPACK(f *testing.F) {
	for _, e := range hpackExamples {
		for _, b := range e.blocks {
			f.Add(unhex(f, b.hex), "apns-topic", "com.example.app")
		}
	}
	f.Add(unhex(f, "20 3f45 40016101 62 be 7e 0163"), "", "")
	f.Add(unhex(f, "000161 85 1fffffffff"), strings.Repeat("n", 127), strings.Repeat("v", 200))
	f.Add(unhex(f, "0f80808080808080808002"), "\x00", "\xff")
	f.Fuzz(func(t *testing.T, block []byte, name, value string) {
		d := newHPACKDecoder(256)
		for range 3 { // the tables go on from one to the next
			list, err := d.decode(block)
			size := 0
			for _, f := range d.table {
				size += f.size()
			}
			if d.size != size || size > d.limit || d.limit > d.maxSize {
				t.Fatalf("got table of %d bytes, size %d, limit %d of %d", size, d.size, d.limit, d.maxSize)
			}
			if err != nil {
				if list != nil {
					t.Fatalf("got %q and error %v", list, err)
				}
				break
			}
			var again []byte
			for _, f := range list {
				again = appendField(again, f.name, f.value)
			}
			if got, err := newHPACKDecoder(0).decode(again); err != nil || !slices.Equal(got, list) {
				t.Fatalf("got %q, %v, want %q", got, err, list)
			}
		}

		want := headerField{name, value}
		list, err := newHPACKDecoder(256).decode(appendField(nil, name, value))
		switch {
		case want.size() > maxHeaderList:
			if err == nil {
				t.Errorf("got no error for a field of size %d", want.size())
			}
		case err != nil || !slices.Equal(list, []headerField{want}):
			t.Errorf("got %q, %v, want %q", list, err, want)
		}
	})
}

// What net/http sends, with its Huffman code and its table, and what it makes of
// what we answer.
func TestHPACKNetHTTP(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings []byte
		limit    int // that the client comes to
	}{
		{"default table", nil, 4096},
		{"small table", []byte{0, 1, 0, 0, 1, 0}, 256},
		{"no table", []byte{0, 1, 0, 0, 0, 0}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) { testHPACKNetHTTP(t, tt.settings, tt.limit) })
	}
}

func testHPACKNetHTTP(t *testing.T, settings []byte, limit int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	statuses := []int{200, 400, 403, 404, 405, 410, 413, 429, 500, 503, 204, 206, 304}
	answer := []headerField{{"apns-id", "123e4567"}, {"x-long", strings.Repeat("long", 1000)}, {"x-empty", ""}}
	d := newHPACKDecoder(4096)
	requests := make(chan rawRequest, 1)
	done := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		ln.Close() // all is said on one connection
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		var answers [][]byte
		for _, code := range statuses {
			b := appendStatus(nil, code)
			for _, f := range answer {
				b = appendField(b, f.name, f.value)
			}
			answers = append(answers, b)
		}
		done <- serveRaw(c, settings, d, requests, answers)
	}()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	// A transport may dial once more before it knows of the first connection.
	client, err := transport.NewClientConn(ctx, "http", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// Each byte that a value may have, and enough of '0' that the Huffman code
	// makes it shorter.
	every := []byte("\t")
	for c := ' '; c <= math.MaxUint8; c++ {
		if c != 0x7f {
			every = append(every, byte(c))
		}
	}
	// A value ends in no space.
	all := string(bytes.Repeat([]byte("0"), 1500)) + string(every) + "."

	var first, second int // bytes of blocks
	for i, code := range statuses {
		body := strings.Repeat("x", 10*i)
		req, err := http.NewRequestWithContext(ctx, "POST", fmt.Sprintf("http://%s/3/device/%064d", ln.Addr(), i/2), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		want := []headerField{
			{":authority", ln.Addr().String()}, {":method", "POST"}, {":path", req.URL.Path}, {":scheme", "http"},
			{"accept-encoding", "gzip"}, {"content-length", fmt.Sprint(len(body))}, {"user-agent", "Go-http-client/2.0"},
		}
		set := func(name, value string) {
			req.Header.Set(name, value)
			want = append(want, headerField{name, value})
		}
		set("authorization", "bearer "+strings.Repeat("eyJhbGciOiJFUzI1NiJ9.", 8))
		set("apns-topic", "com.example.app")
		set("apns-push-type", "alert")
		set("apns-priority", fmt.Sprint(5+i%2*5))
		set("apns-expiration", fmt.Sprint(1700000000+i))
		if i >= 2 {
			set("x-all", fmt.Sprint(all, i/2)) // three of them are above 4096
		}

		resp, err := client.RoundTrip(req)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != code {
			t.Errorf("request %d: got status %d, want %d", i, resp.StatusCode, code)
		}
		for _, f := range answer {
			if got := resp.Header.Values(f.name); !reflect.DeepEqual(got, []string{f.value}) {
				t.Errorf("request %d: got %s %q, want %q", i, f.name, got, f.value)
			}
		}

		got := <-requests
		byName := func(a, b headerField) int { return cmp.Compare(a.name, b.name) }
		slices.SortFunc(got.list, byName)
		slices.SortFunc(want, byName)
		if !slices.Equal(got.list, want) {
			t.Errorf("request %d: got %q\nwant %q", i, got.list, want)
		}
		switch i {
		case 0:
			first = got.size
		case 1:
			second = got.size
		}
	}
	client.Close()
	if err := <-done; err != nil {
		t.Errorf("the server: %v", err)
	}
	// Or else the test did not test what it is for.
	if d.limit != limit || d.size > limit || limit > 1000 && len(d.table) == 0 {
		t.Errorf("got table of %d fields, size %d, limit %d, want limit %d", len(d.table), d.size, d.limit, limit)
	}
	if limit == 4096 && second > first/2 {
		t.Errorf("got blocks of %d and %d bytes, want the second to be much smaller", first, second)
	}
}

// A rawRequest is what came in a HEADERS frame.
type rawRequest struct {
	list []headerField
	size int // of the block
}

// serveRaw answers requests by hand, as many as there are answers, and then
// waits for the client to leave.
func serveRaw(c net.Conn, settings []byte, d *hpackDecoder, requests chan<- rawRequest, answers [][]byte) error {
	const (
		data, headers, settingsType      = 0, 1, 4
		endStream, ack                   = 1, 1
		endHeaders, padded, withPriority = 4, 8, 0x20
	)
	write := func(kind, flags byte, stream uint32, payload []byte) error {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
		b = binary.BigEndian.AppendUint32(append(b, flags), stream)
		_, err := c.Write(append(b, payload...))
		return err
	}
	preface := make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	if _, err := io.ReadFull(c, preface); err != nil {
		return err
	}
	if err := write(settingsType, 0, 0, settings); err != nil {
		return err
	}
	for len(answers) > 0 {
		var h [9]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return err
		}
		payload := make([]byte, binary.BigEndian.Uint32(h[:])>>8)
		if _, err := io.ReadFull(c, payload); err != nil {
			return err
		}
		kind, flags, stream := h[3], h[4], binary.BigEndian.Uint32(h[5:])
		switch {
		case kind == settingsType && flags&ack == 0:
			if err := write(settingsType, ack, 0, nil); err != nil {
				return err
			}
		case kind == headers:
			if flags&(endHeaders|padded|withPriority) != endHeaders {
				return fmt.Errorf("HEADERS with flags %#x", flags)
			}
			list, err := d.decode(payload)
			if err != nil {
				return err
			}
			requests <- rawRequest{list, len(payload)}
		}
		if (kind == headers || kind == data) && flags&endStream != 0 {
			if err := write(headers, endHeaders|endStream, stream, answers[0]); err != nil {
				return err
			}
			answers = answers[1:]
		}
	}
	io.Copy(io.Discard, c)
	return nil
}
