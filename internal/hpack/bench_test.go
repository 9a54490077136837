package hpack_test

import (
	"testing"

	"example.com/apns/internal/hpack"
)

func BenchmarkDecode(b *testing.B) {
	block := answer()
	n := 0
	emit := func(name, value []byte) { n += len(name) + len(value) }
	d := hpack.NewDecoder(4096, 16<<10)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(block, emit); err != nil {
			b.Fatal(err)
		}
	}
	if want := b.N * len(":status"+"200"+"apns-id"+"eabeae54-14a8-11e5-b60b-1697f925ec7b"); n != want {
		b.Errorf("got %d bytes, want %d", n, want)
	}
}

// The fields of a request whose authorization is encoded once beforehand.
func BenchmarkEncode(b *testing.B) {
	type field struct {
		name, value string
		indexing    hpack.Indexing
	}
	request := []field{
		{":method", "POST", hpack.Index},
		{":path", "/3/device/00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0", hpack.Literal},
		{"apns-topic", "com.example.app", hpack.Index},
		{"apns-push-type", "alert", hpack.Index},
		{"apns-expiration", "1700000000", hpack.IndexName},
	}
	var e hpack.Encoder
	var block []byte
	encode := func(fields []field) {
		block = e.AppendBegin(block[:0])
		for i := range fields {
			f := &fields[i]
			block = e.AppendField(block, f.name, f.value, f.indexing)
		}
	}
	// All that a client sends may be in the table.
	encode([]field{
		{":authority", "api.push.apple.com", hpack.Index},
		{"apns-priority", "10", hpack.Index},
		{"apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b", hpack.IndexName},
		{"apns-collapse-id", "collapse", hpack.IndexName},
	})
	encode(request)
	b.ReportAllocs()
	for b.Loop() {
		encode(request)
	}
}

func BenchmarkHuffmanDecode(b *testing.B) {
	for _, bb := range []struct{ name, s string }{
		{"apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b"},
		{"text", "Mon, 21 Oct 2013 20:13:21 GMT; Mozilla/5.0 (X11; Linux)"},
		{"binary", "\x00\x01\x02\x03\xf0\xf1\xf2\xf3\n\r\x16\xff\x80\x90\xa0\xb0"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			block := hpack.AppendHuffman(nil, bb.s)
			block = append(hpack.AppendInt([]byte{0, 0}, 0x80, 7, len(block)), block...)
			emit := func(name, value []byte) {}
			d := hpack.NewDecoder(4096, 16<<10)
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(block, emit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
