package pubkey

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"math/big"
)

// Validate returns an error, which names the rule, for a key that [Check] refuses,
// and for an RSA modulus that can be factored by looking at it: a prime (SP 800-89
// §5.3.3) or a product of two primes close to each other, a square included (FIPS
// 186-5 §5.1, requirement on |p − q|). The primality test is one exponentiation:
// some 3 ms for 2048 bits, 10 ms for 3072 and 25 ms for 4096. A key of another kind
// costs no more than Check.
//
// It does not prove that a key is good. A modulus of three primes passes, and so does one
// whose factors a third party knows.
func Validate(key crypto.PublicKey) error {
	if err := Check(key); err != nil {
		return err
	}
	k, ok := key.(*rsa.PublicKey)
	switch {
	case !ok:
		return nil
	case closeFactors(k.N):
		return errors.New("RSA modulus: its factors are close to each other (FIPS 186-5 §5.1)")
	case passesFermat(k.N):
		return errors.New("RSA modulus: it is a prime number (NIST SP 800-89 §5.3.3)")
	}
	return nil
}

// firstPrimes is the product of the odd primes below 752, the bound of SP 800-89
// §5.3.3. It has 1042 bits, so one division and one greatest common divisor look
// for all of them.
var firstPrimes = productBelow(752)

func productBelow(end int64) *big.Int {
	product := big.NewInt(1)
	for n := int64(3); n < end; n += 2 {
		if big.NewInt(n).ProbablyPrime(0) { // exact for numbers of 64 bits
			product.Mul(product, big.NewInt(n))
		}
	}
	return product
}

// smallFactor returns the smallest odd prime below 752 that divides n, or 0.
func smallFactor(n *big.Int) int64 {
	rest := new(big.Int).Mod(n, firstPrimes)
	common := rest.GCD(nil, nil, rest, firstPrimes)
	if common.IsInt64() && common.Int64() == 1 {
		return 0
	}
	f := int64(3)
	for new(big.Int).Mod(common, big.NewInt(f)).Sign() != 0 {
		f += 2
	}
	return f
}

// fermatRounds is how many candidates closeFactors looks at. Keys of broken
// generators, whose second prime is the next one after the first, fall in the
// first few (CVE-2022-26320). The cost is below 1 ms.
const fermatRounds = 100

// closeFactors is Fermat's factorization: n = a² − b² for an a close to √n.
func closeFactors(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	square := new(big.Int).Mul(a, a)
	if square.Cmp(n) == 0 {
		return true
	}
	b2, b := square.Sub(square, n), new(big.Int)
	// From a² − n to (a+1)² − n by adding 2a + 1.
	for range fermatRounds {
		b2.Add(b2, b.Lsh(a, 1)).Add(b2, one)
		a.Add(a, one)
		if mayBeSquare(b2) && b.Mul(b.Sqrt(b2), b).Cmp(b2) == 0 {
			return true
		}
	}
	return false
}

// mayBeSquare is false for four of five numbers that are no squares: a square
// leaves one of these twelve remainders when divided by 64.
func mayBeSquare(n *big.Int) bool {
	const remainders = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 | 1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57
	low := new(big.Int).And(n, sixBits).Uint64()
	return uint64(remainders)>>low&1 == 1
}

// passesFermat reports whether 2^(n−1) ≡ 1 mod n. Every prime passes. Of other
// numbers so few pass that no honest key is refused for it.
func passesFermat(n *big.Int) bool {
	return new(big.Int).Exp(two, new(big.Int).Sub(n, one), n).Cmp(one) == 0
}

var one, two, sixBits = big.NewInt(1), big.NewInt(2), big.NewInt(63)
