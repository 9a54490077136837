package hpack_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"example.com/apns/internal/hpack"
)

// A story is one connection of http2jp/hpack-test-case.
type story struct {
	Cases []struct {
		Seqno           int
		HeaderTableSize *int `json:"header_table_size"` // from this block on; nil is no change
		Wire            string
		Headers         []map[string]string // of one field each
	}
}

// TestVectors decodes what encoders of other authors sent, and encodes the fields
// again. The environment variable APNS_VECTORS names a folder whose hpack folder
// holds a folder for each encoder, as in github.com/http2jp/hpack-test-case.
func TestVectors(t *testing.T) {
	dir := os.Getenv("APNS_VECTORS")
	if dir == "" {
		t.Skip("SKIPPED: APNS_VECTORS is not set, so blocks of other encoders are not tested")
	}
	files, err := filepath.Glob(filepath.Join(dir, "hpack", "*", "story_*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d stories in %s, %v, want some", len(files), dir, err)
	}
	blocks := 0
	for _, file := range files {
		encoder := filepath.Base(filepath.Dir(file))
		t.Run(encoder+"/"+filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var s story
			if err := json.Unmarshal(b, &s); err != nil {
				t.Fatal(err)
			}
			blocks += testStory(t, s)
		})
	}
	t.Logf("%d blocks of %d stories", blocks, len(files))
}

func testStory(t *testing.T, s story) (blocks int) {
	limit, maxLimit := 4096, 4096
	for _, c := range s.Cases {
		if c.HeaderTableSize != nil {
			maxLimit = max(maxLimit, *c.HeaderTableSize)
		}
	}
	d := hpack.NewDecoder(maxLimit, 1<<20)
	encoders := make([]hpack.Encoder, 3) // one for each Indexing
	decoders := make([]*hpack.Decoder, len(encoders))
	for i := range decoders {
		decoders[i] = hpack.NewDecoder(4096, 1<<20)
	}
	for _, c := range s.Cases {
		var want []field
		for _, f := range c.Headers {
			for name, value := range f {
				want = append(want, field{name, value})
			}
		}
		block, err := hex.DecodeString(c.Wire)
		if err != nil {
			t.Fatalf("block %d: %v", c.Seqno, err)
		}
		got, err := decode(d, block)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("block %d: got %q, %v, want %q", c.Seqno, got, err, want)
		}
		blocks++

		if c.HeaderTableSize != nil {
			limit = *c.HeaderTableSize
			for i := range encoders {
				encoders[i].SetMaxTableSize(uint32(limit))
			}
		}
		if _, size, l := d.Table(); l > limit || size > l {
			t.Errorf("block %d: got a table of %d bytes, limit %d, want at most %d", c.Seqno, size, l, limit)
		}
		for i := range encoders {
			block := encode(&encoders[i], hpack.Indexing(i), want...)
			if got, err := decode(decoders[i], block); err != nil || !slices.Equal(got, want) {
				t.Fatalf("block %d, encoded again as %d: got %q, %v, want %q", c.Seqno, i, got, err, want)
			}
			if _, _, l := decoders[i].Table(); l != min(limit, 4096) {
				t.Errorf("block %d, encoded again as %d: got limit %d, want %d", c.Seqno, i, l, min(limit, 4096))
			}
		}
	}
	return blocks
}
