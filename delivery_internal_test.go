package apns

import "testing"

// A source gets what was finished at once in one piece and in order, also where the
// deliveries of other sources are in between.
func TestPopSource(t *testing.T) {
	a, b, c := new(pushAll), new(pushAll), new(pushCall)
	names := map[source]string{a: "a", b: "b", c: "c"}
	var finished list
	for i, s := range []source{a, b, a, c, b, a, b} {
		finished.push(&delivery{source: s, seq: uint32(i)})
	}
	want := map[string][]uint32{"a": {0, 2, 5}, "b": {1, 4, 6}, "c": {3}}
	for finished.n > 0 {
		rs := finished.popSource()
		name := names[rs.first.source]
		if rs.n != len(want[name]) {
			t.Fatalf("source %s: %d deliveries, want %d", name, rs.n, len(want[name]))
		}
		for i, r := 0, rs.first; r != nil; i, r = i+1, r.next {
			if r.source != rs.first.source || r.seq != want[name][i] {
				t.Errorf("source %s: delivery %d of source %s, want %d", name, r.seq, names[r.source], want[name][i])
			}
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}
