package warehouse.service;

import transfer.Codes;
import warehouse.dto.AddressView;
import warehouse.dto.CustomerCard;
import warehouse.dto.CustomerCity;
import warehouse.dto.CustomerRank;
import warehouse.dto.CustomerTier;
import warehouse.entity.Address;
import warehouse.entity.Customer;

/** Customers as other parts of the house need them. */
public class Customers {
    /** The address on the screen. */
    public AddressView address(Address address) {
        AddressView view = new AddressView();
        view.setStreet(address.getStreet());
        view.setCity(address.getCity());
        view.setPostalCode(address.getPostalCode());
        view.setCountry(address.getCountry());
        return view;
    }

    /** A customer in a list; every customer in it has an address. */
    public CustomerCard card(Customer customer) {
        CustomerCard card = new CustomerCard();
        card.setId(customer.getId());
        card.setEmail(customer.getEmail());
        card.setAddressCity(customer.getAddress().getCity());
        card.setAddressCountry(customer.getAddress().getCountry());
        return card;
    }

    /** What a customer is entitled to. */
    public CustomerRank rank(Customer customer) {
        CustomerRank rank = new CustomerRank();
        rank.setId(customer.getId());
        rank.setFamilyName(customer.getFamilyName());
        rank.setTier(Codes.decode(CustomerTier.class, customer.getTier()));
        return rank;
    }

    /** Where parcels go. */
    public CustomerCity city(Customer customer) {
        CustomerCity city = new CustomerCity();
        city.setId(customer.getId());
        city.setEmail(customer.getEmail());
        Address address = customer.getAddress();
        city.setCity(address == null ? "n/a" : address.getCity());
        return city;
    }
}
