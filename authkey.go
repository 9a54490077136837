package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"example.com/apns/internal/secret"
)

// An AuthKey is a token signing key: the .p8 file of an Apple developer account. Over
// HTTP/2 it takes the place of a client certificate.
//
// It may serve any number of connections, Configs and goroutines. A program should have
// one AuthKey for each key, and not one for each connection: connections share the
// provider tokens that it signs, and Apple limits how often a team may change them.
//
// A connection starts with a token that is under 35 minutes old and uses it for at least
// 20 minutes. It replaces the token at an age of 55 minutes, because Apple rejects tokens that
// are over an hour old. The age is measured by the wall clock. If the clock is set, and the
// token then appears to be 55 minutes old, or to be issued 55 minutes in the future, the
// connection replaces it at once.
//
// After the answer ExpiredProviderToken the next push on that connection gets another
// token, at most once in 20 minutes. If the server rejects that token as well, the clock of
// this machine is wrong. More tokens would not help, and Apple would answer
// TooManyProviderTokenUpdates. So pushes then fail with ExpiredProviderToken.
type AuthKey struct {
	keyID   string
	teamID  string
	private *ecdsa.PrivateKey
	now     func() time.Time // nil: time.Now

	mu sync.Mutex // protects following
	// shared is the token that was signed last. It is a pointer so that fmt does not
	// print the token with the struct. The same is true of the private key.
	shared *providerToken
}

// ParseAuthKey decodes a token signing key: an ECDSA key on the curve P-256, in PKCS #8, not
// encrypted. That is what Apple's .p8 file has.
//
// ParseAuthKey also accepts a text that an environment variable, a form or an editor has
// changed: with other line breaks or none, \n as two characters, quotes, indentation, a byte
// order mark, without the BEGIN or the END line, or base64 of the whole file. If it cannot read
// the key, the error says what it found instead. The error never shows a part of the key.
//
// The key ID and the team ID have 10 digits and capital letters each. The developer account
// shows both ("Establishing a token-based connection to APNs").
func ParseAuthKey(pem []byte, keyID, teamID string) (*AuthKey, error) {
	k, err := parseAuthKey(pem, keyID, teamID)
	if err != nil {
		return nil, fmt.Errorf("apns: %w", err)
	}
	return k, nil
}

// LoadAuthKey reads a token signing key from a .p8 file. See [ParseAuthKey].
//
// Apple names the file AuthKey_ABC123DEFG.p8, after the key ID. If the file has such a name,
// it is an error if the name has another key ID: a server would only say that the provider
// token is invalid. A file with any other name may have any key ID.
func LoadAuthKey(file, keyID, teamID string) (*AuthKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("apns: reading the auth key: %w%s", secret.FileError(err), insteadOfName(file, "ParseAuthKey"))
	}
	k, err := parseAuthKey(b, keyID, teamID)
	if err == nil {
		err = k.checkName(file)
	}
	if err != nil {
		return nil, fmt.Errorf("apns: %s: %w", file, err)
	}
	return k, nil
}

// insteadOfName returns a hint for the error of a file whose name is not a name, but the
// text of a key or certificate. The function parse takes such a text. Otherwise it returns
// "".
func insteadOfName(file, parse string) string {
	if len(readPEM([]byte(file))) == 0 {
		return ""
	}
	return ": it is a key or a certificate, expected the name of a file: " + parse + " takes the text itself"
}

// checkName checks the key ID against that in the file's name.
func (k *AuthKey) checkName(file string) error {
	id := keyIDInName(file)
	switch id {
	case "", k.keyID:
		return nil
	case k.teamID:
		return fmt.Errorf("key ID is %s and team ID is %s, expected them the other way around: the file's name has the key ID %s", k.keyID, k.teamID, id)
	}
	return fmt.Errorf("key ID is %s, expected %s as in the file's name: correct the ID, or rename the file", k.keyID, id)
}

// keyIDInName returns the key ID in a file name like AuthKey_ABC123DEFG.p8. A browser may
// have added a number: AuthKey_ABC123DEFG (1).p8. It returns "" if the name has another form.
func keyIDInName(file string) string {
	name, ok := strings.CutPrefix(filepath.Base(file), "AuthKey_")
	if !ok || len(name) < idSize || checkID("", name[:idSize]) != nil {
		return ""
	}
	if len(name) > idSize && !strings.Contains(". -_(", name[idSize:idSize+1]) {
		return ""
	}
	return name[:idSize]
}

// String returns the key ID and the team ID. Neither is a secret.
func (k *AuthKey) String() string {
	return fmt.Sprintf("auth key %s of team %s", k.keyID, k.teamID)
}

func parseAuthKey(data []byte, keyID, teamID string) (*AuthKey, error) {
	if err := checkID("key ID", keyID); err != nil {
		return nil, err
	}
	if err := checkID("team ID", teamID); err != nil {
		return nil, err
	}
	if keyID == teamID {
		return nil, fmt.Errorf("key ID and team ID are both %s, expected two different IDs", keyID)
	}
	private, err := signingKey(data)
	if err != nil {
		return nil, fmt.Errorf("auth key %w", err)
	}
	return &AuthKey{keyID: keyID, teamID: teamID, private: private}, nil
}

// signingKey returns the key in a .p8 file. The error begins with "is" or "has".
func signingKey(data []byte) (*ecdsa.PrivateKey, error) {
	blocks := readPEM(data)
	switch {
	case len(blocks) == 0:
		return nil, fmt.Errorf("has no key in its %d bytes, expected -----BEGIN PRIVATE KEY----- and what follows it in the .p8 file", len(data))
	case len(blocks) > 1:
		return nil, fmt.Errorf("has %d keys or certificates in its text, expected one: the key of the .p8 file", len(blocks))
	}
	const expected = "expected an ECDSA key on the curve P-256 in PKCS #8, as in the .p8 file"
	switch b := blocks[0]; {
	case b.kind == kindEncrypted:
		return nil, errors.New("is encrypted, " + expected + ": openssl pkcs8 decrypts it")
	case b.kind == kindSEC1 && b.err == nil:
		hint := ""
		if key, ok := b.value.(*ecdsa.PrivateKey); ok && key.Curve == elliptic.P256() {
			hint = ": openssl pkcs8 -topk8 -nocrypt converts it"
		}
		return nil, errors.New("is " + b.kind.String() + ", " + expected + hint)
	case b.kind != kindPKCS8 && b.kind != "":
		return nil, fmt.Errorf("is %v, %s", b.kind, expected)
	case b.err != nil:
		return nil, fmt.Errorf("%w, %s", b.err, expected)
	}
	value := blocks[0].value
	if value == nil {
		_, err := x509.ParsePKCS8PrivateKey(blocks[0].der)
		return nil, fmt.Errorf("is not a private key in PKCS #8: %w", err)
	}
	private, ok := value.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, errors.New("is " + describeKey(value) + ", " + expected)
	}
	return private, nil
}

// idSize is the length of a key ID and of a team ID.
const idSize = 10

// checkID checks a key ID or team ID. Its error does not quote an ID of the wrong length: it
// may be the key, passed by mistake.
func checkID(name, id string) error {
	if len(id) != idSize {
		return fmt.Errorf("%s has a length of %d, expected %d digits and capital letters", name, len(id), idSize)
	}
	for i, r := range id {
		if !('0' <= r && r <= '9' || 'A' <= r && r <= 'Z') {
			return fmt.Errorf("%s has %q at index %d, expected only digits and capital letters", name, r, i)
		}
	}
	return nil
}

// The ages of provider tokens. Apple rejects a token that is over an hour old, and a
// connection that changes its token more than once in 20 minutes. A connection that starts
// with a token under 35 minutes old can use it for 20 minutes before it is 55 minutes old.
const (
	tokenStartAge = 35 * time.Minute
	tokenMinUse   = 20 * time.Minute
	tokenMaxAge   = 55 * time.Minute

	// clockSlack is how far in the future a token may have been issued. Clocks are often
	// set back by a little.
	clockSlack = time.Minute
)

// A providerToken is a signed token for the authorization header.
type providerToken struct {
	bearer string    // "bearer " and the JWT
	issued time.Time // the time in the JWT, in whole seconds
}

// clock returns the time of the wall clock. It has no monotonic reading, which does not count
// the time for which the machine was suspended.
func (k *AuthKey) clock() time.Time {
	if k.now != nil {
		return k.now().Round(0)
	}
	return time.Now().Round(0)
}

// sign returns a JWT that was issued at the given time.
func (k *AuthKey) sign(at time.Time) (string, error) {
	if k.private == nil {
		return "", errors.New("the AuthKey holds no key, expected one from ParseAuthKey or LoadAuthKey")
	}
	b := base64.RawURLEncoding.AppendEncode(nil, fmt.Appendf(nil, `{"alg":"ES256","kid":"%s"}`, k.keyID))
	b = append(b, '.')
	b = base64.RawURLEncoding.AppendEncode(b, fmt.Appendf(nil, `{"iss":"%s","iat":%d}`, k.teamID, at.Unix()))
	digest := sha256.Sum256(b)
	r, s, err := ecdsa.Sign(rand.Reader, k.private, digest[:])
	if err != nil {
		return "", fmt.Errorf("signing a provider token: %w", err)
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	b = append(b, '.')
	return string(base64.RawURLEncoding.AppendEncode(b, signature[:])), nil
}

// token returns the shared token if its age is less than under. Otherwise it signs a token,
// which becomes the shared one.
func (k *AuthKey) token(under time.Duration) (providerToken, error) {
	return k.tokenOtherThan("", under)
}

// tokenOtherThan is like token, for a connection that cannot use the token with the bearer.
func (k *AuthKey) tokenOtherThan(bearer string, under time.Duration) (providerToken, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock()
	if k.shared != nil && k.shared.bearer != bearer {
		age := now.Sub(k.shared.issued)
		if -clockSlack <= age && age < under {
			return *k.shared, nil
		}
	}
	issued := now.Truncate(time.Second)
	jwt, err := k.sign(issued)
	if err != nil {
		return providerToken{}, &permanentError{err}
	}
	k.shared = &providerToken{"bearer " + jwt, issued}
	return *k.shared, nil
}

// A tokenSource chooses the provider token for each push of one connection. The zero value
// with a key is ready for use. Any number of goroutines may use it.
type tokenSource struct {
	key *AuthKey

	mu          sync.Mutex     // protects following
	current     *providerToken // nil before the first push
	since       time.Time      // when this connection began to use current
	hasExpired  bool           // the server answered ExpiredProviderToken to current
	replacement bool           // current replaced a token to which the server answered that
}

// next returns the bearer for the next push, and reports whether it differs from that of the
// push before. It does not report that for the first push.
func (s *tokenSource) next() (bearer string, refreshed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.key.clock()
	if s.current == nil {
		t, err := s.key.token(tokenStartAge)
		if err != nil {
			return "", false, err
		}
		s.current, s.since = &t, now
		return t.bearer, false, nil
	}
	// If the clock was set back, it is not known how long the token has been in use. Count
	// from now: Apple accepts a change that is too late, but not one that is too early.
	if now.Before(s.since) {
		s.since = now
	}
	age := now.Sub(s.current.issued)
	mayChange := now.Sub(s.since) >= tokenMinUse
	replacement := false
	switch {
	case age >= tokenMaxAge || age <= -tokenMaxAge:
		// Apple would reject the token, which is worse than a change before tokenMinUse.
		// That early, the age is so large only if the clock was set.
	case s.hasExpired && (mayChange || !s.replacement):
		replacement = true
	case age < -clockSlack && mayChange:
		// The clock was ahead when the token was signed. No other connection would start
		// with this token, so this one changes to the token of the others.
	default:
		return s.current.bearer, false, nil
	}
	t, err := s.key.tokenOtherThan(s.current.bearer, tokenStartAge)
	if err != nil {
		return "", false, err
	}
	s.current, s.since, s.hasExpired, s.replacement = &t, now, false, replacement
	return t.bearer, true, nil
}

// expired notes that the server answered ExpiredProviderToken to a push with the bearer. It
// ignores the answer if the token was replaced in the meantime. It reports whether the next
// push gets another token.
func (s *tokenSource) expired(bearer string) (renewed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || bearer != s.current.bearer {
		return true
	}
	s.hasExpired = true
	return !s.replacement || s.key.clock().Sub(s.since) >= tokenMinUse
}
