package page

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// curl returns a command that pushes a message of HTTP/2 again, with the same topic, header and
// payload. It returns an empty string for one of the binary protocol, which curl does not
// speak.
func (p *Page) curl(r *apnstest.Record) string {
	if r.Port != apns.ProviderPort {
		return ""
	}
	words := []string{"curl", "-sS", "-i", "-g", "--path-as-is", "--http2", "--cacert", p.Files.CA, "-H", "@" + p.Files.Authorization}
	path := "/3/device/" + r.Message.Token
	// With a certificate a push needs no apns-topic, and with the provider token of the command it
	// does. The Topic of a broadcast is empty.
	noTopic := r.Message.Topic != ""
	for _, f := range r.Header {
		noTopic = noTopic && f.Name != "apns-topic"
		switch {
		case f.Name == ":path":
			path = f.Value
		case f.Name == ":method" && f.Value != "POST":
			words = append(words, "-X", f.Value)
		case strings.HasPrefix(f.Name, "apns-") && f.Value == "":
			words = append(words, "-H", f.Name+";") // with a colon curl would leave the field out
		case strings.HasPrefix(f.Name, "apns-"):
			words = append(words, "-H", f.Name+": "+f.Value)
		}
	}
	if noTopic {
		words = append(words, "-H", "apns-topic: "+r.Message.Topic)
	}
	url := "https://" + Reachable(p.Server.HTTP2Addr) + path
	if !printable(r.Message.Payload) {
		return encoded(r.Message.Payload) + command(append(words, "--data-binary", "@-", url))
	}
	return command(append(words, "--data-raw", string(r.Message.Payload), url))
}

// push returns a command that pushes the message with examples/push. It returns an empty
// string for a broadcast, which that program does not send.
func (p *Page) push(r *apnstest.Record) string {
	m := r.Message
	if m.Channel != "" {
		return ""
	}
	words := []string{"go", "run", "./examples/push", "-ca", p.Files.CA}
	if r.Port == apns.PushPort {
		words = append(words, "-addr", Reachable(p.Server.PushAddr), "-cert", p.Files.Cert, "-key", p.Files.Key, "-id", strconv.FormatUint(uint64(m.ID), 10))
	} else {
		words = append(words, "-addr", Reachable(p.Server.HTTP2Addr), "-p8", p.Files.AuthKey, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-topic", m.Topic)
	}
	if m.PushType != "" {
		words = append(words, "-type", string(m.PushType))
	}
	if m.CollapseID != "" {
		words = append(words, "-collapse-id", m.CollapseID)
	}
	if slices.Contains([]apns.Priority{apns.PriorityImmediate, apns.PriorityPowerSaving, apns.PriorityLowest}, m.Priority) {
		words = append(words, "-priority", strconv.Itoa(int(m.Priority)))
	}
	words = append(words, "-payload", "/dev/stdin", "--", m.Token)
	if !printable(m.Payload) {
		return encoded(m.Payload) + command(words)
	}
	return command([]string{"printf", "%s", string(m.Payload)}) + " | " + command(words)
}

// printable reports whether a payload can be an argument of a command, and is safe to paste
// into a terminal.
func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	return !strings.ContainsFunc(string(b), func(r rune) bool { return r != ' ' && !unicode.IsGraphic(r) && r != '\n' })
}

// encoded returns a command that writes a payload to the next one, in base64.
func encoded(b []byte) string {
	return "echo " + base64.StdEncoding.EncodeToString(b) + " | base64 -d | "
}

// command returns a command for a POSIX shell. What came from a client is always quoted.
func command(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quote(word)
	}
	return strings.Join(quoted, " ")
}

// quote quotes a word for a shell, unless it has none but harmless characters. Control
// characters, which a terminal may act on, are left out.
func quote(word string) string {
	harmless := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("@%+=:,./-_", r))
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !harmless(r) }) {
		return word
	}
	word = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return -1
		}
		return r
	}, word)
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
