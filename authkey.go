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

// An AuthKey is a token signing key: the .p8 file of an Apple developer account.
// Over HTTP/2 it takes the place of a client certificate.
//
// It may serve any number of connections, Configs and goroutines. A program
// should have one for each key, not one for each connection: the provider tokens
// that it signs are shared, and Apple limits how often a team may change them.
//
// A connection starts with a token under 35 minutes old, keeps it for at least
// 20 minutes and lets it get no older than 55, where Apple refuses what is over
// an hour old. The age is that of the wall clock. If the clock is set so that a
// token is 55 minutes off, either way, the connection changes it at once.
//
// After an ExpiredProviderToken answer the next push on that connection gets
// another token, but only once in 20 minutes. If that is refused as well, the
// clock of this machine is wrong; to sign more tokens would not help, and draw
// TooManyProviderTokenUpdates. The pushes then keep returning the refusal.
type AuthKey struct {
	keyID   string
	teamID  string
	private *ecdsa.PrivateKey
	now     func() time.Time // nil: time.Now

	mu sync.Mutex // protects following
	// shared is the token signed last. That it is a pointer keeps it out of what
	// fmt prints of the struct, as it does the private key.
	shared *providerToken
}

// ParseAuthKey reads a token signing key: PEM, as in the .p8 file, of which it
// takes the first block. It must be of type PRIVATE KEY: an ECDSA key on the
// curve P-256, in PKCS#8, not encrypted.
//
// The key ID and the team ID are 10 letters and digits each. The developer
// account shows both; the key ID is also part of the file's name.
func ParseAuthKey(pem []byte, keyID, teamID string) (*AuthKey, error) {
	k, err := parseAuthKey(pem, keyID, teamID)
	if err != nil {
		return nil, fmt.Errorf("apns: %w", err)
	}
	return k, nil
}

// LoadAuthKey reads a token signing key from a .p8 file. See [ParseAuthKey].
func LoadAuthKey(file, keyID, teamID string) (*AuthKey, error) {
	// The error of a file that is not there would show its name.
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

// checkID does not quote what is too long: it may be the key, passed in the
// wrong place.
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

// The ages of provider tokens. Apple refuses a token that is over an hour old,
// and a connection that changes its token more often than every 20 minutes. A
// token that is under 35 minutes old when a connection takes it can be kept for
// 20 minutes before it is 55 minutes old.
const (
	tokenStartAge = 35 * time.Minute
	tokenMinUse   = 20 * time.Minute
	tokenMaxAge   = 55 * time.Minute

	// clockSlack is how far in the future a token may have been issued: clocks
	// are set back by a little all the time.
	clockSlack = time.Minute
)

// A providerToken is a signed token, as it goes into the authorization header.
type providerToken struct {
	bearer string    // "bearer " and the JWT
	issued time.Time // what the JWT says, in whole seconds
}

// clock returns the time of the wall clock. A monotonic reading would not count
// the time that the machine was suspended.
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

// token returns the shared token if it is younger than that, and otherwise a new
// one, which is the shared one from then on.
func (k *AuthKey) token(under time.Duration) (providerToken, error) {
	return k.tokenOtherThan("", under)
}

// tokenOtherThan is token for a connection that cannot use the given bearer.
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
		return providerToken{}, &setupError{err}
	}
	k.shared = &providerToken{"bearer " + jwt, issued}
	return *k.shared, nil
}

// A tokenSource decides which provider token each push of one connection
// carries. Its zero value with a key is ready for use, by any number of
// goroutines.
type tokenSource struct {
	key *AuthKey

	mu      sync.Mutex     // protects following
	current *providerToken // nil before the first push
	since   time.Time      // when this connection began to use current
	refused bool           // the server said that current has expired
	forced  bool           // current is there because the one before it was refused
}

// next returns the bearer for a push that is about to be sent, and whether it is
// another than that of the push before. (The first push has none before it.)
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
	// A clock that was set back does not tell how long the token has been in
	// use. To count anew errs on the side that Apple accepts.
	if now.Before(s.since) {
		s.since = now
	}
	age := now.Sub(s.current.issued)
	settled := now.Sub(s.since) >= tokenMinUse
	force := false
	switch {
	case age >= tokenMaxAge || age <= -tokenMaxAge:
		// A token that far off will be refused, which is worse than to change it
		// early. Only a clock that was set leads here early.
	case s.refused && (settled || !s.forced):
		force = true
	case age < -clockSlack && settled:
		// Issued by a clock that was ahead: no other connection would take it.
	default:
		return s.current.bearer, false, nil
	}
	t, err := s.key.tokenOtherThan(s.current.bearer, tokenStartAge)
	if err != nil {
		return "", false, err
	}
	s.current, s.since, s.refused, s.forced = &t, now, false, force
	return t.bearer, true, nil
}

// expired notes that a push with that bearer was answered with
// ExpiredProviderToken. Answers for a token that has since been replaced are ignored.
// It reports whether the next push will carry another token.
func (s *tokenSource) expired(bearer string) (renewed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || bearer != s.current.bearer {
		return true
	}
	s.refused = true
	return !s.forced || s.key.clock().Sub(s.since) >= tokenMinUse
}
