package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"example.com/apns"
)

// all reads a list to its end. It returns "line token payload" for each line with a token, and
// the error for each invalid line.
func all(t *Tokens) (got []string) {
	t.Invalid = func(line int, err error) { got = append(got, fmt.Sprintf("x:%d: %v", line, err)) }
	for line := range t.All(context.Background()) {
		text := fmt.Sprint(line.Number, " ", line.Token)
		if line.Payload != nil {
			text += " " + string(line.Payload)
		}
		got = append(got, text)
	}
	return got
}

func TestTokens(t *testing.T) {
	longest := strings.Repeat("aB", apns.MaxTokenSize)
	buffer := strings.Repeat("0", 64<<10)
	for name, test := range map[string]struct {
		list string
		want []string
	}{
		"empty":         {"", nil},
		"blank":         {"\n\r\n \t\n", nil},
		"mark":          {"\ufeff", nil},
		"one":           {"00c0ffee", []string{"1 00c0ffee"}},
		"lines":         {"00\n01\n", []string{"1 00", "2 01"}},
		"white space":   {"\ufeff 00 \r\n\n\t01\t\n\r\n02", []string{"1 00", "3 01", "5 02"}},
		"twice":         {"00\n00\n01\n 00", []string{"1 00", "3 01"}},
		"other case":    {"ab\nAB\n", []string{"1 ab"}},
		"payloads":      {"00\t{\"a\":1}\n01 \t {} \r\n02\t\n", []string{`1 00 {"a":1}`, "2 01 {}", "3 02"}},
		"payload twice": {"00\t{}\n00\n00\t{ }\n00\t{}\n00\n", []string{"1 00 {}", "2 00", "3 00 { }"}},
		"bad payloads":  {"00\t{\n01\t[]\n02\tnull\n03\tx\n0x\t{}\n04\t{}\t{}", []string{"x:1: payload is not JSON, at byte 1: unexpected end of JSON input", `x:2: payload is not a JSON object, expected {"aps":...}`, `x:3: payload is not a JSON object, expected {"aps":...}`, "x:4: payload is not JSON, at byte 1: invalid character 'x' looking for beginning of value", "x:5: token has 'x' at index 1, expected only hexadecimal digits", "x:6: payload is not JSON, at byte 4: invalid character '{' after top-level value"}},
		"longest":       {longest + "\n" + longest + "0", []string{"1 " + longest, "x:2: token has 201 characters, expected at most 200 hexadecimal digits"}},
		"invalid":       {"0\n01\n0g\n0 0\n", []string{"x:1: token has 1 characters, expected an even number of hexadecimal digits", "2 01", "x:3: token has 'g' at index 1, expected only hexadecimal digits", "x:4: token has ' ' at index 1, expected only hexadecimal digits"}},
		"mark later":    {"00\n\ufeff00\n", []string{"1 00", `x:2: token has '\ufeff' at index 0, expected only hexadecimal digits`}},
		"very long":     {buffer + "\n00\n", []string{"x:1: line has 65537 bytes, expected a device token, or one with a payload after a tab", "2 00"}},
		"fits":          {buffer[1:] + "\n00\n", []string{"x:1: token has 65535 characters, expected at most 200 hexadecimal digits", "2 00"}},
		"very long end": {"00\n" + buffer + buffer, []string{"1 00", "x:2: line has 131072 bytes, expected a device token, or one with a payload after a tab"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, in := range []io.Reader{strings.NewReader(test.list), iotest.OneByteReader(strings.NewReader(test.list)), iotest.DataErrReader(strings.NewReader(test.list))} {
				list := NewTokens("x", in)
				list.IsBinary = true
				if got := all(list); !reflect.DeepEqual(got, test.want) {
					t.Errorf("got %.300q, want %.300q", got, test.want)
				}
				if list.Err() != nil || !list.Ended() {
					t.Errorf("got the error %v, ended %v; want the end and no error", list.Err(), list.Ended())
				}
			}
		})
	}
}

// Duplicates yields each line, and NeedPayload makes one without a payload invalid.
func TestTokensFields(t *testing.T) {
	list := NewTokens("x", strings.NewReader("00\n00\t{}\n00\t{}\n"))
	list.Duplicates = true
	if got, want := all(list), []string{"1 00", "2 00 {}", "3 00 {}"}; !slices.Equal(got, want) || list.Skipped() != 0 {
		t.Errorf("Duplicates: got %q, %d skipped; want %q, 0", got, list.Skipped(), want)
	}
	// Without IsBinary, tokens may be longer.
	long := strings.Repeat("aB", apns.MaxTokenSize+1)
	longest := strings.Repeat("00", 2048)
	list = NewTokens("x", strings.NewReader(long+"\n"+longest+"\n"+longest+"00\n"+long+"a\n"+long+"\t[]\n"))
	want := []string{"1 " + long, "2 " + longest, "x:3: token has 4098 characters, expected at most 4096 hexadecimal digits",
		"x:4: token has 203 characters, expected an even number of hexadecimal digits", `x:5: payload is not a JSON object, expected {"aps":...}`}
	if got := all(list); !slices.Equal(got, want) {
		t.Errorf("long tokens: got %q, want %q", got, want)
	}
	list = NewTokens("x", strings.NewReader("00\n00\t{}\n00\t{}\n"))
	list.NeedPayload = true
	want = []string{"x:1: line has only a token, and there is no alert text: expected a tab and a payload after the token", "2 00 {}"}
	if got := all(list); !slices.Equal(got, want) || list.Skipped() != 1 || list.InvalidLines() != 1 {
		t.Errorf("NeedPayload: got %q, %d skipped, %d invalid; want %q, 1, 1", got, list.Skipped(), list.InvalidLines(), want)
	}
}

// If reading fails, All yields the tokens before the error, and Err returns the error.
func TestTokensError(t *testing.T) {
	broken := errors.New("the disk is broken")
	for name, list := range map[string]string{"after a line": "00\n01\n", "in a line": "00\n01\n0"} {
		tokens := NewTokens("x", io.MultiReader(strings.NewReader(list), iotest.ErrReader(broken)))
		if got, want := all(tokens), []string{"1 00", "2 01"}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if err := tokens.Err(); !errors.Is(err, broken) || err.Error() != "reading x after 2 lines: the disk is broken" {
			t.Errorf("%s: got the error %v", name, err)
		}
	}
	long := strings.NewReader(strings.Repeat("0", 100000))
	if tokens := NewTokens("x", io.MultiReader(long, iotest.ErrReader(broken))); all(tokens) != nil || !errors.Is(tokens.Err(), broken) {
		t.Errorf("in a long line: got the error %v", tokens.Err())
	}
}

// A second loop over All continues where the first one ended. The end of the context ends a
// loop even if the reader blocks.
func TestTokensInParts(t *testing.T) {
	in, out := io.Pipe()
	list := NewTokens("x", in)
	go fmt.Fprint(out, "00\n01\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	for line := range list.All(ctx) {
		if got = append(got, line.Token); len(got) == 2 {
			time.AfterFunc(time.Millisecond, cancel)
		}
	}
	if want := []string{"00", "01"}; !slices.Equal(got, want) || list.Ended() || list.Err() != nil {
		t.Fatalf("got %q, ended %v, error %v; want %q, not ended", got, list.Ended(), list.Err(), want)
	}
	go func() {
		fmt.Fprint(out, "02\n03")
		out.Close()
	}()
	for line := range list.All(t.Context()) {
		got = append(got, line.Token)
		break
	}
	for line := range list.All(ctx) {
		t.Errorf("got %v from a context that has ended", line)
	}
	if others := all(list); !slices.Equal(got, []string{"00", "01", "02"}) || !slices.Equal(others, []string{"4 03"}) || !list.Ended() {
		t.Errorf("got %q and then %q", got, others)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is none", err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "is a folder, expected a file") {
		t.Errorf("got %v, want that it is a folder", err)
	}
	name := filepath.Join(dir, "tokens")
	if err := os.WriteFile(name, []byte("00\n01\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := all(list); len(got) != 2 || list.size != 6 || list.IsTerminal() || !list.IsSame(f) {
		t.Errorf("got %q of size %d, terminal %v, same %v", got, list.size, list.IsTerminal(), list.IsSame(f))
	}
	if NewTokens("x", strings.NewReader("")).IsSame(f) {
		t.Error("a list that is not in a file is the same as a file")
	}
}

func TestProgressText(t *testing.T) {
	start := time.Unix(1700000000, 0)
	for want, test := range map[string]struct {
		size, at                  int64
		taken, invalid, done, bad int64
		skipped                   int64
		ended                     bool
		after                     time.Duration
	}{
		"0, 0/s":                            {after: 0},
		"500, 250/s":                        {at: 3250, taken: 600, done: 500, after: 2 * time.Second},
		"100 of about 1000, 50/s, 18s left": {size: 65000, at: 13000, taken: 200, done: 100, after: 2 * time.Second},
		"103 of about 1000, 5 not accepted, 100/s, 9s left": {size: 65000, at: 13000, taken: 200, invalid: 3, done: 100, bad: 2, after: time.Second},
		"0 of about 1000, 0/s":                              {size: 65000, at: 13000, taken: 200, after: time.Minute},
		"103 of about 1000, 100/s, 9s left":                 {size: 65000, at: 13000, taken: 200, skipped: 3, done: 100, after: time.Second},
		"100 of 200, 1/s, 1m40s left":                       {size: 65000, at: 65000, taken: 200, done: 100, ended: true, after: 100 * time.Second},
		"199 of 200, 199/s, 1s left":                        {at: 65000, taken: 200, done: 199, ended: true, after: time.Second},
		"200 of 200, 200/s":                                 {at: 65000, taken: 200, done: 200, ended: true, after: time.Second},
		"200 of about 200, 200/s":                           {size: 10, at: 65000, taken: 200, done: 200, after: time.Second}, // the file has grown
	} {
		list := &Tokens{size: test.size}
		list.at.Store(test.at)
		list.taken.Store(test.taken)
		list.invalid.Store(test.invalid)
		list.skipped.Store(test.skipped)
		list.ended.Store(test.ended)
		p := &Progress{tokens: list, started: start}
		p.done.Store(test.done)
		p.bad.Store(test.bad)
		if got := p.text(start.Add(test.after)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The progress is cleared before another line, and a shorter text overwrites all of a longer
// one.
func TestProgress(t *testing.T) {
	var out strings.Builder
	start := time.Unix(1700000000, 0)
	p := &Progress{tokens: new(Tokens), started: start, w: &out, line: &out, quit: make(chan struct{})}
	p.draw(start)
	p.Add(true)
	p.Add(false)
	p.draw(start.Add(time.Second))
	p.done.Store(1)
	p.bad.Store(0)
	p.draw(start.Add(time.Second))
	p.Println("a", "line")
	fmt.Fprintln(p, "another")
	p.draw(start.Add(time.Second))
	p.Stop()
	p.Stop()
	p.draw(start)
	p.Println("the end")
	const long = "2, 1 not accepted, 2/s"
	blank := func(text string) string { return "\r" + strings.Repeat(" ", len(text)+2) + "\r" }
	want := "\r0, 0/s\r" + long + "\r1, 1/s" + strings.Repeat(" ", len(long)-len("1, 1/s")) +
		blank(long) + "a line\nanother\n\r1, 1/s" + blank("1, 1/s") + "the end\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", &out, want)
	}
}

// A file that is not a terminal gets only the other lines.
func TestProgressNoTerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := NewProgress(f, new(Tokens))
	p.Add(true)
	p.Println("a line")
	p.draw(time.Now())
	p.Stop()
	if b, err := os.ReadFile(f.Name()); string(b) != "a line\n" || err != nil {
		t.Errorf("got %q, %v; want only the line", b, err)
	}
}

func TestTally(t *testing.T) {
	var tally Tally
	gone := &apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered}
	for _, err := range []error{
		nil,
		nil,
		&apns.PushError{HTTPStatus: 400, Reason: apns.ReasonBadDeviceToken},
		gone,
		&apns.PushError{HTTPStatus: 502},
		gone,
		&apns.PushError{Status: apns.StatusInvalidToken},
		fmt.Errorf("%w: %w", apns.ErrInDoubt, context.Canceled),
		fmt.Errorf("%w: %w", apns.ErrNotSent, gone), // about another message
		fmt.Errorf("%w: priority is 7", apns.ErrInvalid),
		apns.ErrExpired,
		&apns.PushError{Status: apns.StatusShutdown},
	} {
		rejection := tally.Add(err)
		if want, _ := err.(*apns.PushError); rejection != want && (want == nil || want.Rejected()) {
			t.Errorf("%v: got the rejection %v, want %v", err, rejection, want)
		}
	}
	var reasons []string
	for reason, n := range tally.Reasons() {
		reasons = append(reasons, fmt.Sprint(n, " ", reason))
	}
	want := []string{"2 Unregistered", "1 BadDeviceToken", "1 HTTP status 502", "1 invalid token"}
	if tally.Accepted != 2 || tally.Rejected != 5 || tally.InDoubt != 1 || tally.NotSent != 4 || !slices.Equal(reasons, want) {
		t.Errorf("got %+v, %q; want %q", tally, reasons, want)
	}
}
