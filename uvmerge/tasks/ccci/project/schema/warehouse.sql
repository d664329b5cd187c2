-- Tables of the warehouse. Amounts are hundredths, weights are grams, days are like 20240131.
CREATE TABLE carriers (
    id BIGINT PRIMARY KEY,
    name VARCHAR(80) NOT NULL,
    scac CHAR(4) NOT NULL UNIQUE,
    active BOOLEAN DEFAULT TRUE
);

CREATE TABLE suppliers (
    id BIGINT PRIMARY KEY,
    name VARCHAR(80) NOT NULL DEFAULT 'unknown; ask',
    country CHAR(2),
    rating INT CHECK (rating BETWEEN 1 AND 5)
);

CREATE TABLE addresses (
    id BIGINT PRIMARY KEY,
    street VARCHAR(80),
    city VARCHAR(80),
    postal_code VARCHAR(10),
    country CHAR(2)
);

CREATE TABLE customers (
    id BIGINT PRIMARY KEY,
    given_name VARCHAR(80),
    family_name VARCHAR(80) NOT NULL,
    email VARCHAR(120),
    tier CHAR(1) NOT NULL,
    address BIGINT REFERENCES addresses
);

CREATE TABLE whs_zone (
    id BIGINT PRIMARY KEY,
    code VARCHAR(8) NOT NULL,
    label VARCHAR(80),
    celsius INT
);

CREATE TABLE whs_bin (
    id BIGINT PRIMARY KEY,
    zone BIGINT NOT NULL,
    code VARCHAR(12) NOT NULL,
    capacity BIGINT
);

ALTER TABLE whs_bin ADD CONSTRAINT bin_in_zone FOREIGN KEY (zone) REFERENCES whs_zone (id);

CREATE TABLE whs_staff (
    id BIGINT PRIMARY KEY,
    display_name VARCHAR(80) NOT NULL,
    badge VARCHAR(12)
);

CREATE TABLE whs_driver (
    id BIGINT PRIMARY KEY,
    display_name VARCHAR(80) NOT NULL,
    badge VARCHAR(12)
);

CREATE TABLE items (
    id BIGINT PRIMARY KEY,
    sku VARCHAR(20) NOT NULL UNIQUE,
    title VARCHAR(120),
    price BIGINT NOT NULL,
    weight BIGINT,
    vendor BIGINT REFERENCES suppliers (id),
    home BIGINT,
    FOREIGN KEY (home) REFERENCES whs_bin (id)
);

CREATE TABLE sales_orders (
    id BIGINT PRIMARY KEY,
    number VARCHAR(20) NOT NULL,
    customer BIGINT NOT NULL REFERENCES customers (id),
    placed_on INT NOT NULL,
    status CHAR(1) NOT NULL,
    note VARCHAR(400)
);

CREATE TABLE order_lines (
    id BIGINT PRIMARY KEY,
    sales_order BIGINT NOT NULL REFERENCES sales_orders (id) ON DELETE CASCADE,
    item BIGINT NOT NULL REFERENCES items (id),
    quantity INT NOT NULL,
    price BIGINT NOT NULL
);

CREATE TABLE shipments (
    id BIGINT PRIMARY KEY,
    tracking VARCHAR(40) NOT NULL,
    partner BIGINT NOT NULL,
    dispatched_at BIGINT,
    weight BIGINT,
    sales_order BIGINT REFERENCES sales_orders (id),
    CONSTRAINT taken_by FOREIGN KEY (partner) REFERENCES carriers (id)
);

CREATE TABLE receipts (
    id BIGINT PRIMARY KEY,
    partner BIGINT NOT NULL REFERENCES suppliers (id),
    received_on INT NOT NULL,
    dock BIGINT NOT NULL REFERENCES whs_bin (id),
    quantity INT NOT NULL,
    remark VARCHAR(400)
);

CREATE TABLE stock_counts (
    id BIGINT PRIMARY KEY,
    place BIGINT NOT NULL REFERENCES whs_bin (id),
    article BIGINT NOT NULL REFERENCES items (id),
    counted INT NOT NULL,
    "by" BIGINT NOT NULL,
    counted_on INT NOT NULL
);

ALTER TABLE stock_counts ADD FOREIGN KEY ("by") REFERENCES whs_staff;

CREATE TABLE pallets (
    id BIGINT PRIMARY KEY,
    label VARCHAR(20) NOT NULL,
    location BIGINT REFERENCES whs_bin (id)
);

CREATE TABLE pallet_items (
    pallet BIGINT REFERENCES pallets (id),
    item BIGINT REFERENCES items (id),
    PRIMARY KEY (pallet, item)
);

CREATE INDEX lines_by_order ON order_lines (sales_order);
