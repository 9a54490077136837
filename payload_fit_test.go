package apns_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/apns"
)

// characters are each one character to a reader, of one or more code points.
var characters = []string{
	"a", " ", "é", "日", "🎉",
	"\"", "\\", "\n", "\x01", "<", "&", "\u2028", // JSON has escapes for some
	"\r\n",
	"e\u0301",             // a combining accent
	"z\u0301\u0328\u0301", // three
	"❤\ufe0f",             // a variation selector
	"1\ufe0f\u20e3",       // a keycap
	"👍🏽",                  // a skin tone
	"👨‍👩‍👧‍👦",             // joiners
	"👩🏽‍🚒",
	"🇩🇪", "🇫🇷", // regional indicators
	"🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", // tags: Scotland
	"각", "\u1100\u1161\u11a8", "가\u11a8", // Hangul
	"नि", "क्षि", // a vowel sign; a virama
	"ｶ\uff9e",      // a half-width voiced mark
	"\u0600\u0661", // a sign before a number
}

// bodySize returns the size of a body in JSON.
func bodySize(t *testing.T, body string) int {
	t.Helper()
	b, err := (&apns.Payload{Alert: apns.Alert{Body: body}, MaxSize: 1 << 20}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return len(b) - len(`{"aps":{"alert":{"body":""}}}`)
}

// shorten returns the body of a payload in which there is room for so many bytes of it.
func shorten(t *testing.T, body string, room int) (string, error) {
	t.Helper()
	limit := len(`{"aps":{"alert":{"body":""}}}`) + room
	p := &apns.Payload{Alert: apns.Alert{Body: body}, MaxSize: limit, ShortenBody: true}
	b, err := p.Encode()
	if err != nil {
		return "", err
	}
	if p.Alert.Body != body {
		t.Errorf("Encode changed the payload's body to %q", p.Alert.Body)
	}
	if len(b) > limit {
		t.Errorf("%q: got %d bytes, want at most %d", body, len(b), limit)
	}
	var back struct {
		APS struct{ Alert struct{ Body string } }
	}
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return back.APS.Alert.Body, nil
}

// checkShortened checks the body for each amount of room: as many whole characters as fit.
func checkShortened(t *testing.T, chars []string, room int) {
	t.Helper()
	body := strings.Join(chars, "")
	got, err := shorten(t, body, room)
	whole := bodySize(t, body)
	switch {
	case whole <= room:
		if err != nil || got != body {
			t.Fatalf("%q, room for %d bytes: got %q, %v; want all of it", body, room, got, err)
		}
		return
	case room < len("…"):
		want := fmt.Sprintf("apns: payload has %d bytes with the body left out, expected at most %d", 29+3, 29+room)
		if err == nil || err.Error() != want || !errors.Is(err, apns.StatusInvalidPayloadSize) || !errors.Is(err, apns.ErrInvalid) {
			t.Fatalf("%q, room for %d bytes:\ngot  %q, %v\nwant %s", body, room, got, err, want)
		}
		return
	}
	want, size := "", len("…")
	for _, c := range chars {
		if size += bodySize(t, c); size > room {
			break
		}
		want += c
	}
	if err != nil || got != want+"…" {
		t.Fatalf("%q, room for %d bytes:\ngot  %q, %v\nwant %q", body, room, got, err, want+"…")
	}
}

func TestShortenBody(t *testing.T) {
	for room := range bodySize(t, strings.Join(characters, "")) + 2 {
		checkShortened(t, characters, room)
	}
	for _, c := range characters {
		for room := range bodySize(t, c+c+c) + 2 {
			checkShortened(t, []string{c, c, c}, room)
		}
	}
}

// A body of any kind is shortened to the limit of the push type.
func TestShortenBodyInPayloads(t *testing.T) {
	long := strings.Repeat("日本 & ", 1000)
	for name, test := range map[string]struct {
		p     *apns.Payload
		limit int
	}{
		"alert":           {&apns.Payload{Alert: apns.Alert{Title: "T", Body: long}, Badge: new(1), Custom: map[string]any{"a": 1}}, 4096},
		"binary protocol": {&apns.Payload{Alert: apns.Alert{Body: long}, MaxSize: apns.MaxBinaryPayload}, 2048},
		"VoIP":            {&apns.Payload{Alert: apns.Alert{Body: long}, Type: apns.PushTypeVoIP}, 5120},
		"Live Activity": {func() *apns.Payload {
			p := updated(apns.LiveActivity{ContentState: map[string]any{"a": strings.Repeat("x", 2000)}})
			p.Alert = apns.Alert{TitleLocKey: "T", Body: long}
			return p
		}(), 4096},
	} {
		if b, err := test.p.Encode(); b != nil || !errors.Is(err, apns.StatusInvalidPayloadSize) {
			t.Errorf("%s, without ShortenBody: got %d bytes, %v; want an error", name, len(b), err)
		}
		test.p.ShortenBody = true
		b, err := test.p.Encode()
		if err != nil || len(b) > test.limit || len(b) < test.limit-2 { // a character has up to 3 bytes
			t.Errorf("%s: got %d bytes, %v; want %d", name, len(b), err, test.limit)
		}
		m, err := test.p.Message(token)
		if err != nil || string(m.Payload) != string(b) {
			t.Errorf("%s: Message: got %v, want the bytes of Encode", name, err)
		}
		if b, err := json.Marshal(*test.p); err != nil || len(b) < test.limit-2 {
			t.Errorf("%s: json.Marshal: got %d bytes, %v", name, len(b), err)
		}
	}
	for name, p := range map[string]*apns.Payload{
		"no body":         {Alert: apns.Alert{Title: strings.Repeat("x", 5000)}},
		"a localized one": {Alert: apns.Alert{LocKey: "K", LocArgs: []string{strings.Repeat("x", 5000)}}},
		"too much else":   {Alert: apns.Alert{Title: strings.Repeat("x", 5000), Body: "Hi"}},
	} {
		if _, err := p.Encode(); err == nil || strings.Contains(err.Error(), "ShortenBody") {
			t.Errorf("%s: got %v, want an error without the hint, since it would not help", name, err)
		}
		p.ShortenBody = true
		if b, err := p.Encode(); b != nil || !errors.Is(err, apns.StatusInvalidPayloadSize) {
			t.Errorf("%s: got %d bytes, %v; want an error", name, len(b), err)
		}
	}
}

// A counter counts how often it is encoded.
type counter struct{ n *int }

func (c counter) MarshalJSON() ([]byte, error) {
	*c.n++
	return []byte("1"), nil
}

// The payload is encoded as it is, with no more of the body than the ellipsis, and, only if
// the body is to be shortened, with what fits.
func TestShortenBodyEffort(t *testing.T) {
	n := 0
	p := &apns.Payload{Alert: apns.Alert{Body: "Hi"}, Custom: map[string]any{"a": counter{&n}}}
	for _, test := range []struct {
		body    string
		shorten bool
		want    int
	}{
		{"Hi", false, 1},
		{"Hi", true, 1},
		{strings.Repeat("x", 5000), false, 2},
		{strings.Repeat("x", 5000), true, 3},
	} {
		n, p.Alert.Body, p.ShortenBody = 0, test.body, test.shorten
		if b, err := p.Encode(); (err == nil) != (test.shorten || len(test.body) == 2) || n != test.want {
			t.Errorf("%d bytes, ShortenBody %t: got %d bytes, %v; encoded %d times, want %d", len(test.body), test.shorten, len(b), err, n, test.want)
		}
	}
}

// A body of known characters loses whole ones. What is left of any text is valid, within the
// limit, and the start of the text; and between two plain letters the text ends only where the
// next one does not fit.
func FuzzShortenBody(f *testing.F) {
	f.Add([]byte{0, 13, 18, 20, 21, 22}, "Grüße\xff, 世界 🎉", uint16(10))
	f.Add([]byte{}, "e\u0301\u0301\u0301", uint16(4))
	f.Add([]byte{21, 21, 22}, "🇩🇪🇫🇷🇩", uint16(20))
	f.Fuzz(func(t *testing.T, picks []byte, text string, room uint16) {
		var chars []string
		for _, i := range picks {
			chars = append(chars, characters[int(i)%len(characters)])
		}
		if len(picks) > 500 || len(text) > 500 {
			return
		}
		checkShortened(t, chars, int(room%600))
		checkShortenedText(t, text, int(room%600))
	})
}

func checkShortenedText(t *testing.T, text string, room int) {
	t.Helper()
	got, err := shorten(t, text, room)
	if err != nil {
		if room >= len("…") {
			t.Fatalf("%q, room for %d bytes: got %v, want at least an ellipsis", text, room, err)
		}
		return
	}
	valid := string([]rune(text)) // each byte that is not UTF-8 becomes U+FFFD
	if got == valid {
		return
	}
	start, ok := strings.CutSuffix(got, "…")
	if !utf8.ValidString(got) || !ok || !strings.HasPrefix(valid, start) {
		t.Fatalf("%q, room for %d bytes: got %q, want the start of it and an ellipsis", text, room, got)
	}
	n, before := 0, rune(0)
	for end, r := range text {
		if n > utf8.RuneCountInString(start) && isPlain(before) && isPlain(r) && bodySize(t, text[:end])+len("…") <= room {
			t.Fatalf("%q, room for %d bytes: got %q, want at least %q", text, room, got, text[:end])
		}
		n++
		before = r
	}
}

func isPlain(r rune) bool { return r >= ' ' && r <= '~' || r >= '一' && r <= '龥' }
