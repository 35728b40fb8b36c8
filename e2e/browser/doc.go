// Package browser looks at the page of `artstore-pki audit -o html`, and at the dashboard, in a real
// Chromium. It has tests only, and is a module of its own, because its
// dependencies are nobody else's.
package browser
