/* SPDX-License-Identifier: MIT */
/**
 * quarry/quarry.hpp: blocks, stacks and managers in C++17: a std::pmr::memory_resource and an STL allocator on any
 * manager, handles that let go by themselves, and a scope on a stack. Nothing but inline functions on the C headers.
 *
 *	quarry::resource r(quarry::of(arena));
 *	std::pmr::vector<int> v(&r);
 *	std::vector<int, quarry::allocator<int>> w{quarry::allocator<int>(quarry::of(arena))};
 *	auto text = quarry::make_unique<std::string>("here");       // or in a manager: quarry::make_unique_in<T>(m, ...)
 *	quarry::shared<Session> s = quarry::make_shared<Session>(7);   // the count stands beside the memory
 *	quarry::weak<Session> seen = s;
 *	if (auto again = seen.lock()) again->touch();
 *	quarry::frame f;  char *line = static_cast<char *>(f.alloc(200));
 *
 * Managers must outlive what is of them. A null manager means the default one. Errors: std::bad_alloc, which ends the
 * program (std::abort) where it is built with -fno-exceptions; who wants to go on there takes the C functions. Nothing
 * here asks for RTTI: parts of a program with and without -fno-rtti go together. Those with and without exceptions do,
 * but which of the two an error is may be either's then.
 */
#ifndef QUARRY_HPP
#define QUARRY_HPP

#include <quarry/block.h>
#include <quarry/stack.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <memory_resource>
#include <new>
#include <type_traits>
#include <utility>

namespace quarry {

namespace detail {

template <class E> [[noreturn]] inline void fail()
{
#ifdef __cpp_exceptions
	throw E();
#else
	std::abort();
#endif
}

} // namespace detail

/// The manager that an arena is, or a stack; std::bad_alloc where it cannot be had.
inline quarry_manager *of(quarry_arena *arena)
{
	quarry_manager *m = quarry_manager_of_arena(arena);

	if (m == nullptr)
		detail::fail<std::bad_alloc>();
	return m;
}

inline quarry_manager *of(quarry_stack *stack) noexcept
{
	return quarry_stack_manager(stack);
}

namespace detail {

inline void *take(quarry_manager *m, std::size_t bytes, std::size_t alignment)
{
	void *p = alignment <= 16 ? quarry_manager_alloc(m, bytes) : quarry_manager_alloc_aligned(m, alignment, bytes);

	if (p == nullptr)
		detail::fail<std::bad_alloc>();
	return p;
}

/// What gives memory back in which no object came to be, since its constructor threw.
struct giver {
	quarry_manager *manager;

	void operator()(void *p) const noexcept { (void)quarry_manager_free(manager, p); }
};

/// The same of a block.
struct holder {
	quarry_block block;

	~holder() { (void)quarry_block_unref(&block); }
};

/// NULL and the default manager are one.
inline quarry_manager *meant(quarry_manager *m) noexcept
{
	return m == nullptr ? quarry_manager_default() : m;
}

} // namespace detail

/// Memory of a manager, for containers of std::pmr. Two are equal when their managers are the same.
class resource final : public std::pmr::memory_resource {
public:
	explicit resource(quarry_manager *m = nullptr) noexcept : manager_(detail::meant(m)) {}

	quarry_manager *manager() const noexcept { return manager_; }

private:
	void *do_allocate(std::size_t bytes, std::size_t alignment) override
	{
		return detail::take(manager_, bytes, alignment);
	}

	void do_deallocate(void *p, std::size_t, std::size_t) override { (void)quarry_manager_free(manager_, p); }

	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		return is_one(other) && static_cast<const resource &>(other).manager_ == manager_;
	}

	/* By its table of functions, where an object begins in the C++ ABI of all compilers here: that needs no RTTI, and
	 * no class is derived from this. (One whose table a shared object keeps to itself is just another one.) */
	bool is_one(const std::pmr::memory_resource &other) const noexcept
	{
		return std::memcmp(static_cast<const void *>(&other), static_cast<const void *>(this), sizeof(void *)) == 0;
	}

	quarry_manager *manager_;
};

/// An allocator for the containers of the standard library. It goes with its container, where that is moved or swapped.
template <class T> class allocator {
public:
	using value_type = T;
	using propagate_on_container_move_assignment = std::true_type;
	using propagate_on_container_swap = std::true_type;
	using is_always_equal = std::false_type;

	explicit allocator(quarry_manager *m) noexcept : manager_(detail::meant(m)) {}
	allocator() noexcept : manager_(quarry_manager_default()) {}
	template <class U> allocator(const allocator<U> &other) noexcept : manager_(other.manager()) {}

	T *allocate(std::size_t n)
	{
		if (n > static_cast<std::size_t>(PTRDIFF_MAX) / sizeof(T))
			detail::fail<std::bad_array_new_length>();
		return static_cast<T *>(detail::take(manager_, n * sizeof(T), alignof(T)));
	}

	void deallocate(T *p, std::size_t) noexcept { (void)quarry_manager_free(manager_, p); }

	quarry_manager *manager() const noexcept { return manager_; }

	template <class U> bool operator==(const allocator<U> &o) const noexcept { return manager_ == o.manager(); }
	template <class U> bool operator!=(const allocator<U> &o) const noexcept { return manager_ != o.manager(); }

private:
	quarry_manager *manager_;
};

/// Ends an object and gives its memory back to its manager.
template <class T> struct deleter {
	quarry_manager *manager = nullptr;

	void operator()(T *p) const noexcept
	{
		p->~T();
		(void)quarry_manager_free(manager, p);
	}
};

template <class T> using unique = std::unique_ptr<T, deleter<T>>;

template <class T, class... A> unique<T> make_unique_in(quarry_manager *m, A &&...a)
{
	std::unique_ptr<void, detail::giver> memory(detail::take(m, sizeof(T), alignof(T)), detail::giver{m});
	T *object = ::new (memory.get()) T(std::forward<A>(a)...);

	(void)memory.release();
	return unique<T>(object, deleter<T>{m});
}

template <class T, class... A> unique<T> make_unique(A &&...a)
{
	return make_unique_in<T>(nullptr, std::forward<A>(a)...);
}

template <class T> class weak;

/// A reference to an object in a block: 32 bytes, and no control block; the count is the block's, beside the memory. The
/// object ends with the last one. T is what was made: a pointer to a base of it cannot be had from one of these.
template <class T> class shared {
public:
	shared() noexcept : block_() {}
	/// Empty where QUARRY_REFS_MAX is reached.
	shared(const shared &o) noexcept : block_(o.block_)
	{
		if (block_.p != nullptr && quarry_block_ref(&block_) != 0)
			block_ = quarry_block();
	}
	shared(shared &&o) noexcept : block_(std::exchange(o.block_, quarry_block())) {}
	shared &operator=(shared o) noexcept
	{
		std::swap(block_, o.block_);
		return *this;
	}
	~shared() { (void)quarry_block_unref(&block_); }

	void reset() noexcept { shared().swap(*this); }
	void swap(shared &o) noexcept { std::swap(block_, o.block_); }
	T *get() const noexcept { return static_cast<T *>(block_.p); }
	T &operator*() const noexcept { return *get(); }
	T *operator->() const noexcept { return get(); }
	explicit operator bool() const noexcept { return block_.p != nullptr; }
	bool operator==(const shared &o) const noexcept { return block_.p == o.block_.p; }
	bool operator!=(const shared &o) const noexcept { return block_.p != o.block_.p; }
	long use_count() const noexcept { return block_.p == nullptr ? 0 : quarry_refcount(block_.p); }

private:
	friend class weak<T>;
	template <class U, class... A> friend shared<U> make_shared_in(quarry_manager *m, A &&...a);

	explicit shared(const quarry_block &b) noexcept : block_(b) {}

	quarry_block block_;
};

/// What is left of a shared<T> when none is kept: it keeps nothing alive.
template <class T> class weak {
public:
	weak() noexcept : weak_() {}
	weak(const shared<T> &s) noexcept : weak_()
	{
		if (s)
			weak_ = quarry_weak_of(&s.block_);
	}

	/// A reference again; an empty one when the object is gone.
	shared<T> lock() const noexcept
	{
		quarry_block b;

		return quarry_weak_lock(weak_, &b) == 0 ? shared<T>(b) : shared<T>();
	}

private:
	quarry_weak weak_;
};

template <class T, class... A> shared<T> make_shared_in(quarry_manager *m, A &&...a)
{
	static_assert(!std::is_const_v<T> && !std::is_array_v<T>, "an object, not const");
	quarry_block b = alignof(T) <= 16 ? quarry_block_alloc(m, sizeof(T)) :
					    quarry_block_alloc_aligned(m, alignof(T), sizeof(T));

	if (b.p == nullptr)
		detail::fail<std::bad_alloc>();
	detail::holder memory{b};
	::new (b.p) T(std::forward<A>(a)...);
	if constexpr (!std::is_trivially_destructible_v<T>) {
		if (quarry_block_at_end(&b, [](void *p) { static_cast<T *>(p)->~T(); }) != 0) {
			static_cast<T *>(b.p)->~T();
			detail::fail<std::bad_alloc>();
		}
	}
	return shared<T>(std::exchange(memory.block, quarry_block()));
}

template <class T, class... A> shared<T> make_shared(A &&...a)
{
	return make_shared_in<T>(nullptr, std::forward<A>(a)...);
}

/// A block of bytes with one owner: what quarry_block_alloc gives, let go at the end.
class block {
public:
	block() noexcept : block_() {}
	explicit block(std::size_t n, quarry_manager *m = nullptr) : block_(quarry_block_alloc(m, n))
	{
		if (block_.p == nullptr)
			detail::fail<std::bad_alloc>();
	}
	block(block &&o) noexcept : block_(std::exchange(o.block_, quarry_block())) {}
	block &operator=(block &&o) noexcept
	{
		std::swap(block_, o.block_);
		return *this;
	}
	block(const block &) = delete;
	block &operator=(const block &) = delete;
	~block() { (void)quarry_block_unref(&block_); }

	void *data() const noexcept { return block_.p; }
	std::size_t size() const noexcept { return block_.n; }
	void resize(std::size_t n, unsigned flags = 0)
	{
		if (quarry_block_resize(&block_, n, flags) != 0)
			detail::fail<std::bad_alloc>();
	}
	/// One reference more, as another owner.
	block share() const noexcept
	{
		block b;

		if (block_.p != nullptr && quarry_block_ref(&block_) == 0)
			b.block_ = block_;
		return b;
	}
	quarry_block release() noexcept { return std::exchange(block_, quarry_block()); }
	const quarry_block &get() const noexcept { return block_; }

private:
	quarry_block block_;
};

/// A scope on a stack: what is taken through it goes at its end. Without a stack, the thread's scratch one.
class frame {
public:
	explicit frame(quarry_stack *stack = nullptr) : frame_(quarry_frame_begin(stack))
	{
		if (frame_.stack == nullptr)
			detail::fail<std::bad_alloc>();
	}
	frame(const frame &) = delete;
	frame &operator=(const frame &) = delete;
	~frame() { quarry_frame_end(&frame_); }

	void *alloc(std::size_t n, std::size_t alignment = 16)
	{
		void *p = quarry_stack_alloc_aligned(frame_.stack, alignment, n);

		if (p == nullptr)
			detail::fail<std::bad_alloc>();
		return p;
	}

	/// An array of n; nothing is called at the end, so only of types that need nothing.
	template <class T> T *array(std::size_t n)
	{
		static_assert(std::is_trivially_destructible_v<T>, "nobody ends them");
		if (n > static_cast<std::size_t>(PTRDIFF_MAX) / sizeof(T))
			detail::fail<std::bad_array_new_length>();
		T *p = static_cast<T *>(alloc(n * sizeof(T), alignof(T)));

		for (std::size_t i = 0; i < n; i++)
			::new (static_cast<void *>(p + i)) T();
		return p;
	}

	quarry_stack *stack() const noexcept { return frame_.stack; }

private:
	quarry_frame frame_;
};

} // namespace quarry

#endif
