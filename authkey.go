package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// An AuthKey is a token signing key: the .p8 file of an Apple developer account. Over
// HTTP/2 it takes the place of a client certificate.
//
// It may serve any number of connections, Configs and goroutines. A program should have
// one AuthKey for each key, and not one for each connection: connections share the
// provider tokens that it signs, and Apple limits how often a team may change them.
//
// A connection starts with a token that is under 35 minutes old and uses it for at least
// 20 minutes. It replaces the token before that is 55 minutes old, because Apple rejects
// tokens that are over an hour old. The age is measured by the wall clock. If the clock is
// set so that a token appears to be issued 55 minutes or more ago, or as far in the
// future, the connection replaces the token at once.
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

// ParseAuthKey decodes a token signing key in PEM, as in the .p8 file. It uses the first
// block, which must have the type PRIVATE KEY: an ECDSA key on the curve P-256, in PKCS#8,
// not encrypted.
//
// The key ID and the team ID have 10 letters and digits each. The developer account shows
// both. The key ID is also part of the file's name.
func ParseAuthKey(pem []byte, keyID, teamID string) (*AuthKey, error) {
	k, err := parseAuthKey(pem, keyID, teamID)
	if err != nil {
		return nil, fmt.Errorf("apns: %w", err)
	}
	return k, nil
}

// LoadAuthKey reads a token signing key from a .p8 file. See [ParseAuthKey].
func LoadAuthKey(file, keyID, teamID string) (*AuthKey, error) {
	// Otherwise the error of a file that does not exist would show the key as its name.
	if strings.Contains(file, "-----BEGIN") {
		return nil, errors.New("apns: the file name is a key in PEM, expected the name of a file: ParseAuthKey takes the key itself")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("apns: reading the auth key: %w", err)
	}
	k, err := parseAuthKey(b, keyID, teamID)
	if err != nil {
		return nil, fmt.Errorf("apns: %s: %w", file, err)
	}
	return k, nil
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
	block, _ := pem.Decode(data)
	switch {
	case block == nil:
		return nil, fmt.Errorf("auth key has no PEM block in its %d bytes, expected -----BEGIN PRIVATE KEY----- and what follows it in the .p8 file", len(data))
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("auth key is encrypted, expected a PEM block of type PRIVATE KEY: openssl pkcs8 decrypts it")
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("auth key is a PEM block of type %q, expected PRIVATE KEY, as in the .p8 file", block.Type)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("auth key is not a private key in PKCS#8: %w", err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("auth key is a %T, expected an ECDSA key on the curve P-256", parsed)
	}
	if private.Curve != elliptic.P256() {
		return nil, fmt.Errorf("auth key is on the curve %s, expected P-256", private.Params().Name)
	}
	return &AuthKey{keyID: keyID, teamID: teamID, private: private}, nil
}

// checkID checks a key ID or team ID. Its error does not quote an ID of the wrong length:
// that may be the key, passed in the wrong place.
func checkID(name, id string) error {
	if len(id) != 10 {
		return fmt.Errorf("%s has a length of %d, expected 10 letters and digits", name, len(id))
	}
	for i, r := range id {
		if !('0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z') {
			return fmt.Errorf("%s has %q at index %d, expected only letters and digits", name, r, i)
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

// clock returns the time of the wall clock, without a monotonic reading: that would leave
// out the time for which the machine was suspended.
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
