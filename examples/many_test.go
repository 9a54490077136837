package examples_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// A protocol has the arguments with which a program speaks it to a server.
type protocol struct {
	name string
	args []string
}

func protocols(t *testing.T, s *apnstest.Server) []protocol {
	t.Helper()
	cert, key, ca, p8 := files(t, s)
	return []protocol{
		{"h2", []string{"-addr", s.HTTP2Addr, "-ca", ca, "-bundle-id", apnstest.BundleID, "-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID}},
		{"binary", []string{"-addr", s.PushAddr, "-ca", ca, "-cert", cert, "-key", key}},
	}
}

// numbered returns n different tokens.
func numbered(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%08x%s", i, token[8:])
	}
	return all
}

func tokensOf(ms []*apns.Message) []string {
	var all []string
	for _, m := range ms {
		all = append(all, m.Token)
	}
	return all
}

// readTokens returns the tokens in a file.
func readTokens(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func TestPushMany(t *testing.T) {
	const good, bad, bad2, dead, fault, cut = "900d", "bad0", "bad1", "dead", "fa11", "0c"
	s := apnstest.NewServer(func(m *apns.Message) error {
		switch m.Token {
		case bad, bad2:
			return apns.ReasonBadDeviceToken
		case fault:
			if m.PushType == "" { // the binary protocol
				return apns.StatusProcessingError
			}
			return &apns.PushError{HTTPStatus: 502, Reason: "BadGateway"}
		case cut:
			return apnstest.Fault{End: apnstest.EndRST}
		}
		return nil
	})
	defer s.Close()
	s.Unregister(dead, time.Unix(1700000000, 0))
	mixed := "\ufeff " + good + "\t\r\n\n" + bad + "\nxyz0\n" + dead + "\r\n  \n" + bad2 + "\n" + fault + "\n" +
		"abc\n" + strings.Repeat("ab", 2049) + "\n" + strings.Repeat("0", 100000) + "\n" + token
	invalid := func(name, most string) string {
		return name + ":4: token has 'x' at index 0, expected only hexadecimal digits\n" +
			name + ":9: token has 3 characters, expected an even number of hexadecimal digits\n" +
			name + ":10: token has 4098 characters, expected at most " + most + " hexadecimal digits\n" +
			name + ":11: line has 100001 bytes, expected a device token, or one with a payload after a tab\n"
	}
	list := file(t, "tokens.txt", []byte(mixed))
	empty := file(t, "empty.txt", nil)
	blank := file(t, "blank.txt", []byte("\n \r\n\t"))
	hopeless := file(t, "hopeless.txt", []byte(good+"\nxyz0\n"+token))
	doubtful := file(t, "doubtful.txt", []byte(cut+"\n"))
	dir := t.TempDir()
	large := file(t, "large.json", []byte(`{"aps":{"alert":"`+strings.Repeat("x", 5000)+`"}}`))
	const all = good + "\n" + token + "\n"

	type test struct {
		args           []string
		stdin          string
		stdout, stderr string // stderr is a regular expression for all of it
		status         int
		retry          string
	}
	quote := regexp.QuoteMeta
	for _, p := range protocols(t, s) {
		with := func(args ...string) []string { return slices.Concat(p.args, args) }
		mixedOut := "accepted: 2\nrejected: 4\n  BadDeviceToken: 2\n  BadGateway: 1\n  Unregistered: 1\ninvalid: 4\nto try again: 1, in RETRY\n"
		verbose := "(?m)^LIST:5: dead rejected: Unregistered \\(HTTP status 410, dead since 2023-11-14T22:13:20Z\\)$"
		tooLarge := "error: payload has 5020 bytes, expected at most 4096\n"
		doubt := "error: in doubt: .*\n"
		long := strings.Repeat("ab", apns.MaxTokenSize+1)
		longOut, longErr, longStatus := "accepted: 2\n", "", 0
		most := "4096"
		if p.name == "binary" {
			mixedOut = "accepted: 3\nrejected: 3\n  invalid token: 2\n  processing error: 1\ninvalid: 4\nto try again: 1, in RETRY\n"
			verbose = "(?m)^LIST:3: bad0 rejected: invalid token \\(status 8\\)$"
			tooLarge = "error: payload has 5020 bytes, expected at most 2048\n"
			longOut, longStatus = "accepted: 1\ninvalid: 1\n", 1
			longErr = "standard input:2: token has 202 characters, expected at most 200 hexadecimal digits\n"
			most = "200"
		}
		for name, test := range map[string]test{
			"all sorts":   {with("-tokens", list, "Hi"), "", mixedOut, quote(invalid(list, most)), 1, fault + "\n"},
			"stdin":       {with("-tokens", "-", "Hi"), mixed, mixedOut, quote(invalid("standard input", most)), 1, fault + "\n"},
			"long token":  {with("-tokens", "-", "Hi"), token + "\n" + long, longOut, longErr, longStatus, ""},
			"all good":    {with("-tokens", "-", "Hi"), all, "accepted: 2\n", "", 0, ""},
			"twice":       {with("-tokens", "-", "Hi"), all + strings.ToUpper(all), "accepted: 2\nskipped, the same as a line before: 2\n", "", 0, ""},
			"duplicates":  {with("-duplicates", "-tokens", "-", "Hi"), all + all, "accepted: 4\n", "", 0, ""},
			"empty":       {with("-tokens", empty, "Hi"), "", "accepted: 0\n", "", 0, ""},
			"blank":       {with("-tokens", blank, "Hi"), "", "accepted: 0\n", "", 0, ""},
			"in doubt":    {append(with("-tokens", doubtful), "Hi"), "", "accepted: 0\nin doubt: 1\nto try again: 1, in RETRY\n", doubt, 1, cut + "\n"},
			"too large":   {with("-tokens", hopeless, "-payload", large), "", "accepted: 0\nnot sent: 2\ninvalid: 1\nto try again: 2, in RETRY\n", "(?s).*" + tooLarge + ".*", 1, all},
			"nobody":      {with("-addr", "127.0.0.1:1", "-tokens", hopeless, "Hi"), "", "accepted: 0\nnot sent: 2\ninvalid: 1\nto try again: 2, in RETRY\n", "error: connecting to 127.0.0.1:1: .*\nthe rest of HOPELESS goes to RETRY\nHOPELESS:2: token has 'x' .*\n", 1, all},
			"verbose":     {with("-v", "-tokens", list, "Hi"), "", mixedOut, "(?s).*" + verbose + ".*", 1, fault + "\n"},
			"no such":     {with("-tokens", "/nonexistent", "Hi"), "", "", "not sent: open /nonexistent: .*\n", 1, "untouched"},
			"folder":      {with("-tokens", dir, "Hi"), "", "", "not sent: .* is a folder, expected a file of device tokens, one a line\n", 1, "untouched"},
			"no payload":  {with("-tokens", list, "-payload", "/nonexistent"), "", "", "not sent: open /nonexistent: .*\n", 1, "untouched"},
			"no CA":       {with("-ca", "/nonexistent", "-tokens", list, "Hi"), "", "", "not sent: open /nonexistent: .*\n", 1, "untouched"},
			"no text":     {with("-tokens", doubtful), "", "accepted: 0\ninvalid: 1\n", "DOUBTFUL:1: line has only a token, and there is no alert text: expected a tab and a payload after the token\n", 1, ""},
			"old style":   {with("-tokens", list, token, "1", "Hi"), "", "", quote("push: number of arguments is 3, expected only the alert text: with -tokens the device tokens are in its file; put a text of several words in quotes, and flags before the arguments; see push -h\n"), 2, "untouched"},
			"two texts":   {with("-tokens", list, "Hi", "Hello"), "", "", "push: number of arguments is 2, expected only the alert text: .*\n", 2, "untouched"},
			"text and":    {with("-tokens", list, "-payload", large, "Hi"), "", "", "push: number of arguments is 1, expected none: .*\n", 2, "untouched"},
			"with an id":  {with("-tokens", list, "-id", "1", "Hi"), "", "", "push: -id with -tokens, expected one of them: .*\n", 2, "untouched"},
			"credentials": {[]string{"-tokens", list, "Hi"}, "", "", "push: no credentials, expected .*\n", 2, "untouched"},
		} {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				retry := file(t, "retry.txt", []byte("untouched"))
				names := strings.NewReplacer("RETRY", retry, "HOPELESS", hopeless, "DOUBTFUL", doubtful, "LIST", list)
				stdout, stderr, status := run(t, []byte(test.stdin), "push", append([]string{"-retry-file", retry}, test.args...)...)
				stderr = withoutAdvice(stderr)
				wantErr := regexp.MustCompile("^(?:" + names.Replace(test.stderr) + ")$")
				if want := names.Replace(test.stdout); stdout != want || !wantErr.MatchString(stderr) || status != test.status {
					t.Errorf("got  %q, %q, %d\nwant %q, %q, %d", stdout, stderr, status, want, wantErr, test.status)
				}
				got, err := os.ReadFile(retry)
				if err != nil || strings.Join(sorted(strings.Split(string(got), "\n")), "\n") != strings.Join(sorted(strings.Split(test.retry, "\n")), "\n") {
					t.Errorf("retry file: got %q, %v; want %q", got, err, test.retry)
				}
			})
		}
	}
}

// If the server refuses the sender, push prints that once, and not for each token.
func TestPushManyRefused(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	all := numbered(5000)
	list := file(t, "tokens.txt", []byte(strings.Join(all, "\n")))
	retry := file(t, "retry.txt", nil)
	h2 := protocols(t, s)[0]
	stdout, stderr, status := run(t, nil, "push", slices.Concat(h2.args, []string{"-team-id", "APNSTESTT2", "-tokens", list, "-retry-file", retry, "Hi"})...)
	if want := "accepted: 0\nnot sent: 5000\nto try again: 5000, in " + retry + "\n"; stdout != want || status != 1 {
		t.Errorf("got %q, %d; want %q, 1", stdout, status, want)
	}
	if !regexp.MustCompile(`^error: not sent: .*InvalidProviderToken \(HTTP status 403\)\nThe key, its key ID and the team ID .*\n$`).MatchString(stderr) {
		t.Errorf("got %q, want the error once", stderr)
	}
	if got := readTokens(t, retry); !slices.Equal(sorted(got), all) {
		t.Errorf("the retry file has %d tokens, want all 5000", len(got))
	}
	// With correct credentials, push accepts the retry file as -tokens.
	stdout, stderr, status = run(t, nil, "push", slices.Concat(h2.args, []string{"-tokens", retry, "Hi"})...)
	if stdout != "accepted: 5000\n" || stderr != "" || status != 0 {
		t.Errorf("with the retry file: got %q, %q, %d", stdout, stderr, status)
	}
	if got := tokensOf(s.Messages(apnstest.Accepted)); !slices.Equal(sorted(got), all) {
		t.Errorf("the server accepted %d tokens, want each of 5000 once", len(got))
	}
}

// Each message is the one that the flags describe. The server of -local accepts them all.
func TestPushManyFlags(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	payload := file(t, "payload.json", []byte(`{"aps":{"content-available":1}}`))
	list := file(t, "tokens.txt", []byte(strings.Join(numbered(100), "\n")))
	for _, p := range protocols(t, s) {
		before := len(s.Records())
		stdout, stderr, status := run(t, nil, "push", slices.Concat(p.args, []string{"-topic", "a.b", "-type", "background", "-collapse-id", "c",
			"-priority", "5", "-expiry", "0", "-payload", payload, "-tokens", list})...)
		if stdout != "accepted: 100\n" || stderr != "" || status != 0 {
			t.Errorf("%s: got %q, %q, %d", p.name, stdout, stderr, status)
		}
		var got []string
		for _, r := range s.Records()[before:] {
			m := r.Message
			got = append(got, m.Token)
			if string(m.Payload) != `{"aps":{"content-available":1}}` || m.Priority != 5 || !m.Expiry.Equal(time.Unix(0, 0)) ||
				p.name == "h2" && (m.Topic != "a.b" || m.PushType != "background" || m.CollapseID != "c") {
				t.Fatalf("%s: got %+v", p.name, m)
			}
		}
		if !slices.Equal(sorted(got), numbered(100)) {
			t.Errorf("%s: got %d tokens, want each of 100 once", p.name, len(got))
		}
	}
	for _, name := range []string{"h2", "binary"} {
		stdout, stderr, status := run(t, nil, "push", "-local", "-protocol", name, "-tokens", list, "Hi")
		if stdout != "accepted: 100\n" || stderr != "" || status != 0 {
			t.Errorf("-local -protocol %s: got %q, %q, %d", name, stdout, stderr, status)
		}
	}
}

func TestRetryFile(t *testing.T) {
	list := file(t, "tokens.txt", []byte(token+"\nxyz0\n"))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Link(list, link); err != nil {
		t.Skip(err)
	}
	for name, test := range map[string]struct {
		args           []string
		stdout, stderr string
		status         int
	}{
		"same file":     {[]string{"-tokens", list, "-retry-file", list}, "", "push: -retry-file " + list + " is the file of -tokens, expected another one; see push -h\n", 2},
		"another name":  {[]string{"-tokens", list, "-retry-file", link}, "", "push: -retry-file " + link + " is the file of -tokens, expected another one; see push -h\n", 2},
		"accepted":      {[]string{"-tokens", list, "-accepted-file", link}, "", "push: -accepted-file " + link + " is the file of -tokens, expected another one; see push -h\n", 2},
		"the same":      {[]string{"-tokens", list, "-accepted-file", "x", "-retry-file", "x"}, "", "push: -accepted-file and -retry-file are the same, expected two files; see push -h\n", 2},
		"from stdin":    {[]string{"-tokens", "-", "-retry-file", list}, "", "push: -retry-file " + list + " is the file of -tokens, expected another one; see push -h\n", 2},
		"a folder":      {[]string{"-tokens", list, "-retry-file", t.TempDir()}, "", "not sent: open ", 1},
		"in no folder":  {[]string{"-tokens", list, "-retry-file", "/nonexistent/retry"}, "", "not sent: open /nonexistent/retry: ", 1},
		"for no tokens": {[]string{"-retry-file", "x", token}, "", "push: -retry-file or -accepted-file without -tokens, expected both; see push -h\n", 2},
		"-v no tokens":  {[]string{"-v", token}, "", "push: -v or -duplicates without -tokens, expected both; see push -h\n", 2},
		"stdout":        {[]string{"-tokens", list, "-retry-file", "-"}, "", "push: -retry-file or -accepted-file is -, expected the name of a file; see push -h\n", 2},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "push"), slices.Concat([]string{"-local"}, test.args, []string{"Hi"})...)
			in, err := os.Open(list)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			var stdout, stderr bytes.Buffer
			cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &stdout, &stderr
			err = cmd.Run()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if stdout.String() != test.stdout || !strings.HasPrefix(stderr.String(), test.stderr) || !ok || exit.ExitCode() != test.status {
				t.Errorf("got %q, %q, %v; want %q, %q, %d", &stdout, &stderr, err, test.stdout, test.stderr, test.status)
			}
			if b, _ := os.ReadFile(list); string(b) != token+"\nxyz0\n" {
				t.Fatalf("the list is now %q", b)
			}
		})
	}

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	s := apnstest.NewServer(func(*apns.Message) error { return &apns.PushError{HTTPStatus: 502, Reason: "BadGateway"} })
	defer s.Close()
	for _, retry := range []string{"/dev/full", os.DevNull} {
		stdout, stderr, status := run(t, []byte(token), "push", slices.Concat(protocols(t, s)[0].args, []string{"-tokens", "-", "-retry-file", retry, "Hi"})...)
		stderr = withoutAdvice(stderr)
		want := ""
		if retry == "/dev/full" {
			want = "error: /dev/full is not complete: write /dev/full: "
		}
		if !strings.HasPrefix(stderr, want) || want == "" && stderr != "" || !strings.HasPrefix(stdout, "accepted: 0\nrejected: 1\n") || status != 1 {
			t.Errorf("got %q, %q, %d; want %q", stdout, stderr, status, want)
		}
	}
	// A summary that cannot be written is an error.
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "push"), "-local", "-tokens", list, "Hi")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = full, &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "error: write /dev/stdout: ") {
		t.Errorf("got %v, %q; want an error", err, &stderr)
	}
}

// A process is a program with which a test interacts.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout bytes.Buffer
	stderr *bufio.Reader
}

func start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(t.Context(), filepath.Join(bin, program), args...)}
	p.cmd.Stdout = &p.stdout
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stderr = bufio.NewReader(stderr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// interrupt interrupts the program and waits until it says so.
func (p *process) interrupt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for {
		if line, err := p.stderr.ReadString('\n'); line == "interrupted\n" {
			return
		} else if withoutAdvice(line) != "" || err != nil {
			t.Fatalf("got %q, %v; want interrupted", line, err)
		}
	}
}

// withoutAdvice returns what a program wrote to standard error, without the lines that say what
// to do about a rejection.
func withoutAdvice(stderr string) string {
	return adviceLines.ReplaceAllString(stderr, "")
}

var adviceLines = regexp.MustCompile(`(?m)^([A-Za-z ]+: )?(The|See) .*\n`)

// wait waits for the end of the program, and returns what it wrote and its exit status.
func (p *process) wait(t *testing.T) (stdout, stderr string, status int) {
	t.Helper()
	rest, err := io.ReadAll(p.stderr)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Wait()
	return p.stdout.String(), withoutAdvice(string(rest)), p.cmd.ProcessState.ExitCode()
}

// After Ctrl-C the retry file has every token that was not accepted.
func TestPushManyInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nothing can be interrupted there")
	}
	const before, after = 300, 1700
	all := numbered(before + after)
	rejected := all[before/2]
	s := apnstest.NewServer(func(m *apns.Message) error {
		if m.Token == rejected {
			return apns.ReasonBadDeviceToken
		}
		return nil
	})
	defer s.Close()
	for _, p := range protocols(t, s) {
		for _, withRetry := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/stdin/%v", p.name, withRetry), func(t *testing.T) {
				sent := len(s.Records())
				retry := filepath.Join(t.TempDir(), "retry.txt")
				args := slices.Concat(p.args, []string{"-tokens", "-"})
				if withRetry {
					args = append(args, "-retry-file", retry)
				}
				program := start(t, "push", append(args, "Hi")...)
				fmt.Fprintln(program.stdin, strings.Join(all[:before], "\n"))
				if err := s.Wait(t.Context(), sent+before); err != nil {
					t.Fatal(err)
				}
				program.interrupt(t)
				if !withRetry { // the program does not read standard input to its end
					stdout, stderr, status := program.wait(t)
					if !strings.HasPrefix(stdout, "accepted: 299\nrejected: 1\n  ") || !strings.HasSuffix(stdout, ": 1\nnot read: the rest of standard input\n") || stderr != "" || status != 1 {
						t.Errorf("got %q, %q, %d", stdout, stderr, status)
					}
					return
				}
				fmt.Fprintf(program.stdin, "xyz0\n%s", strings.Join(all[before:], "\n"))
				program.stdin.Close()
				stdout, stderr, status := program.wait(t)
				// The program reads ahead, so either line may be the first.
				lines := strings.SplitAfter(stderr, "\n")
				slices.Sort(lines)
				wantErr := "standard input:301: token has 'x' at index 0, expected only hexadecimal digits\nthe rest of standard input goes to " + retry + "\n"
				if !strings.HasPrefix(stdout, "accepted: 299\nrejected: 1\n  ") || !strings.HasSuffix(stdout, ": 1\nnot sent: 1700\ninvalid: 1\nto try again: 1700, in "+retry+"\n") || strings.Join(lines, "") != wantErr || status != 1 {
					t.Errorf("got %q, %q, %d", stdout, stderr, status)
				}
				if got := readTokens(t, retry); !slices.Equal(got, all[before:]) {
					t.Errorf("the retry file has %d tokens, want the last 1700 in their order", len(got))
				}
			})
		}
	}
}

// After Ctrl-C no token of a long file is lost, and none is sent to twice, whether or not the
// server still answers.
func TestPushManyInterruptedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nothing can be interrupted there")
	}
	all := numbered(40000)
	list := file(t, "tokens.txt", []byte(strings.Join(all, "\n")))
	for _, stalled := range []bool{false, true} {
		halfway := make(chan struct{})
		open := make(chan struct{})
		s := apnstest.NewServer(func(m *apns.Message) error {
			switch m.Token {
			case all[900]:
				return apns.ReasonBadDeviceToken
			case all[1000]:
				select {
				case halfway <- struct{}{}:
					<-open
				case <-open:
				}
			}
			return nil
		})
		for _, p := range protocols(t, s) {
			t.Run(fmt.Sprintf("%s/%v", p.name, stalled), func(t *testing.T) {
				before := len(s.Records())
				retry := filepath.Join(t.TempDir(), "retry.txt")
				program := start(t, "push", slices.Concat(p.args, []string{"-tokens", list, "-retry-file", retry, "Hi"})...)
				<-halfway
				program.interrupt(t)
				if !stalled {
					open <- struct{}{}
				}
				stdout, stderr, status := program.wait(t)
				if stalled {
					open <- struct{}{}
				}
				if status != 1 {
					t.Errorf("got %q, %q, %d; want status 1", stdout, stderr, status)
				}
				toRetry := make(map[string]int)
				for _, token := range readTokens(t, retry) {
					toRetry[token]++
				}
				outcomes := make(map[apnstest.Outcome][]string)
				for _, r := range s.Records()[before:] {
					outcomes[r.Outcome] = append(outcomes[r.Outcome], r.Message.Token)
				}
				accepted, inDoubt := number(t, stdout, "accepted"), number(t, stdout, "in doubt")
				if got := len(toRetry); accepted+number(t, stdout, "rejected")+got != len(all) {
					t.Errorf("got %q, and %d in the retry file; want %d together", stdout, got, len(all))
				}
				known := make(map[string]bool)
				for _, token := range slices.Concat(outcomes[apnstest.Accepted], outcomes[apnstest.Rejected]) {
					if known[token] {
						t.Errorf("%s was sent twice", token)
					}
					known[token] = true
				}
				both := 0
				for _, token := range all {
					switch {
					case toRetry[token] > 1:
						t.Errorf("%s is %d times in the retry file", token, toRetry[token])
					case toRetry[token] == 1 && known[token]:
						both++
					case toRetry[token] == 0 && !known[token]:
						t.Errorf("%s is lost", token)
					}
				}
				// A token that the server processed may be in the file only if its message
				// was in doubt.
				if both > inDoubt {
					t.Errorf("the server processed %d tokens of the retry file, want at most the %d in doubt", both, inDoubt)
				}
				if toRetry[all[900]] > 0 && inDoubt == 0 {
					t.Errorf("the retry file has a bad device token; %v", slices.Collect(maps.Keys(outcomes)))
				}
			})
		}
		close(open)
		s.Close()
	}
}

// number returns the number in the line of a summary with the name, or 0.
func number(t *testing.T, summary, name string) (n int) {
	t.Helper()
	for line := range strings.Lines(summary) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			if _, err := fmt.Sscan(value, &n); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	return n
}

// On a terminal, and only there, a line shows the progress.
func TestProgress(t *testing.T) {
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.CommandContext(t.Context(), script, "-qec", "echo works", os.DevNull).Output(); err != nil || !strings.HasPrefix(string(out), "works") {
		t.Skipf("this script has other flags: %q, %v", out, err)
	}
	list := file(t, "tokens.txt", []byte(token+"\nxyz0\n"))
	for program, args := range map[string]string{"push": "-local -tokens " + list + " Hi", "prune": "-local -probe -tokens " + list} {
		cmd := exec.CommandContext(t.Context(), script, "-qec", filepath.Join(bin, program)+" "+args, os.DevNull)
		cmd.Stdin = nil
		out, _ := cmd.Output()
		if !strings.HasPrefix(string(out), "\r0, 0/s\r") || !strings.Contains(string(out), "  \r"+list+":2: token has ") {
			t.Errorf("%s: got %q, want a line that shows progress, and is cleared", program, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\r\n")
		if last := lines[len(lines)-1]; strings.Contains(last[strings.LastIndex(last, "\r")+1:], "/s") {
			t.Errorf("%s: %q has progress at the end", program, out)
		}
	}
}
