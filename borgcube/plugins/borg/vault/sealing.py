"""Encryption under the repository key, on any number of threads, with one nonce allocator.

The envelope is Borg's AES-CTR one: type(1) + MAC(32) + nonce(8) + ciphertext (Borg 1.4,
"Internals, Security"). A nonce counts 16-byte blocks. Every encryption of this process,
Borg's own objects included, takes its nonces here; they are reserved on disk before use.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import threading
from typing import Any

import lz4.block
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


class Lz4:
    """Compresses as Borg's ``lz4`` does; stands in for the ``compressor`` of Borg's keys.

    Borg's own compresses into one buffer of the whole process, without the interpreter's lock:
    two threads at once spoil each other's data. No key in a vault keeps it.
    """

    def compress(self, plain: bytes | memoryview) -> bytes:
        """Return compressed data with Borg's header (Borg 1.4, ``borg.compress``)."""
        return b"\1\0" + bytes(lz4.block.compress(plain, store_size=False))


class Sealer:
    """Seal chunks for one opened key; safe to call from many threads.

    ``plain_envelope`` repositories (mode ``authenticated``) have no encryption: the
    envelope is the type byte alone, as Borg writes it.
    """

    def __init__(self, key: Any, *, blake2: bool) -> None:
        self.key = key
        self.type_byte = bytes([key.TYPE])
        self.blake2 = blake2
        self.plain_envelope = not hasattr(key, "cipher")
        self.lock = threading.RLock()  # of the nonces; vault/watch.py looks who has it
        if not self.plain_envelope:
            self._aes = algorithms.AES(key.enc_key)
            self._mac_key = key.enc_hmac_key
            self._next = int(key.cipher.next_iv())
            self._end = 0
        key.compressor = Lz4()
        key.encrypt = self.encrypt_plain

    def _reserve(self, blocks: int) -> int:
        with self.lock:
            if self._next + blocks > self._end:
                self._next = self.key.nonce_manager.ensure_reservation(self._next, blocks)
                self._end = self.key.nonce_manager.end_of_nonce_reservation
            start = self._next
            self._next += blocks
            return start

    def seal(self, data: bytes | memoryview) -> bytes:
        """Return the envelope of already compressed ``data``."""
        if self.plain_envelope:
            return self.type_byte + bytes(data)
        start = self._reserve((len(data) + 15) // 16)
        nonce = struct.pack(">Q", start)
        encryptor = Cipher(self._aes, modes.CTR(bytes(8) + nonce)).encryptor()
        ciphertext = encryptor.update(data)
        return b"".join((self.type_byte, self._mac(nonce, ciphertext), nonce, ciphertext))

    def _mac(self, nonce: bytes | memoryview, ciphertext: bytes | memoryview) -> bytes:
        if self.blake2:
            state = hashlib.blake2b(self._mac_key, digest_size=32)
            state.update(nonce)
            state.update(ciphertext)
            return state.digest()
        mac = hmac.new(self._mac_key, nonce, "sha256")
        mac.update(ciphertext)
        return mac.digest()

    def unseal(self, envelope: bytes | memoryview) -> bytes:
        """Return the compressed data of an envelope; raises ValueError when it was changed."""
        view = memoryview(envelope)
        if bytes(view[:1]) != self.type_byte:
            raise ValueError("an object has another type than its repository")
        if self.plain_envelope:
            return bytes(view[1:])
        mac, nonce, ciphertext = view[1:33], view[33:41], view[41:]
        if not hmac.compare_digest(bytes(mac), self._mac(nonce, ciphertext)):
            raise ValueError("the authentication of an object fails")
        decryptor = Cipher(self._aes, modes.CTR(bytes(8) + bytes(nonce))).decryptor()
        return decryptor.update(ciphertext)

    def encrypt_plain(self, chunk: bytes) -> bytes:
        """Stand in for the key's ``encrypt``: compress, then seal."""
        return self.seal(self.key.compressor.compress(chunk))
